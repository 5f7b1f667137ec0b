"""JSON that every reader takes: null for the numbers that JSON has no word for."""

import json
import math
from typing import Any

import numpy as np


def text(content: Any) -> str:
    """`content` as indented JSON that ends with a newline, null for nan and the infinities."""
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(below) for below in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
