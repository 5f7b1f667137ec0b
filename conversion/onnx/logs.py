"""Keeps what libraries say of their own work off the screen."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def only_errors(name: str | None = None) -> Iterator[None]:
    """Silences, within the context, the warnings of the logger `name`, or of the root's."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
