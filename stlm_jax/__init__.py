"""STLM in JAX: a SAM-guided two-stream lightweight model for anomaly detection."""

__version__ = "0.1.0"
