"""A digest of a model's weights, which tells whether two files hold the same ones."""

import hashlib
from typing import Any

import numpy as np
from flax import traverse_util


def weights_digest(variables: Any) -> str:
    """SHA-256 of all tensors' names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        values = np.ascontiguousarray(leaf, "<f4")
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()
