"""What can go wrong in computing a metric."""

from stlm_jax.runtime.errors import UserError


class MetricError(UserError):
    """Maps, masks, scores or labels that no metric can be computed from."""


class Undefined(Exception):
    """A metric has no value on this set, for the reason in the text."""
