"""Optuna, where it is installed."""

from types import ModuleType

from stlm_jax.runtime.errors import UserError


def optuna_here() -> ModuleType:
    """The library, which says no more than warnings."""
    try:
        import optuna
    except ImportError:
        raise UserError("optuna is not installed: run pip install 'stlm_jax[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
