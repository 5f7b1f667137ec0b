"""A trained model at work: from a folder or a file to maps and scores."""

from stlm_jax.inference.detector import Detection, Detector, Sam

__all__ = ["Detection", "Detector", "Sam"]
