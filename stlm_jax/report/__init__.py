"""The report of an evaluation: one HTML page that opens without a network."""

from stlm_jax.report.events import write_events
from stlm_jax.report.page import write_report

__all__ = ["write_events", "write_report"]
