"""The folder layout of MPDD (Jezek et al., ICUMT 2021): metal parts, laid out as MVTec AD."""

from stlm_jax.data.mvtec_ad import MASK, find_categories, read_category, scan

__all__ = ["MASK", "find_categories", "read_category", "scan"]
