"""Texts as what the keys hold."""

from typing import Any

from stlm_jax.config.rules import wrong_type
from stlm_jax.runtime.errors import UserError

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def value_of(key: str, text: str, default: Any) -> Any:
    """The text of an option as what its key holds, whose default is of the type it must have."""
    if isinstance(default, bool):
        if text.lower() not in _TRUTH:
            raise UserError(wrong_type(key, text, default))
        return _TRUTH[text.lower()]
    if isinstance(default, tuple):
        names = text.strip("()[]").split(",")
        return tuple(name.strip(" '\"") for name in names if name.strip(" '\""))
    try:
        return type(default)(text)
    except ValueError:
        raise UserError(wrong_type(key, text, default)) from None


def put(config: Any, key: str, value: Any) -> None:
    """Changes a key with its dots, such as `train.steps`."""
    *groups, leaf = key.split(".")
    for group in groups:
        config = config[group]
    config[leaf] = value
