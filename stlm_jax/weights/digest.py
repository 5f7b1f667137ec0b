"""Digests: whether a file is as it was written, and whether two files hold the same weights."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.progress import note

CONTENT = "content_sha256"  # in a file's metadata: `content_digest` of what the file holds
FILE = "file_sha256"  # in what an export says of itself: of all its bytes
LENGTH = 64  # of a digest, hexadecimal


def weights_digest(variables: Any) -> str:
    """SHA-256 of all tensors' names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(_leaves(variables)):
        values = np.ascontiguousarray(leaf, "<f4")
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    # Not flax's: users of the torch model alone have none.
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def tensor_digest(tensor: Any) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    array = np.asarray(tensor, order="C")
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def content_digest(tensors: Mapping[str, str], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all that a file holds but for this digest, in whatever order it holds it.

    `tensors` are names and `tensor_digest`s.
    """
    said = [[name, text] for name, text in sorted(metadata.items()) if name != CONTENT]
    return hashlib.sha256(json.dumps([sorted(tensors.items()), said]).encode()).hexdigest()


def check_content(path: Any, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raises UserError unless a file's tensors are those of the digest in its metadata, if any."""
    if CONTENT not in metadata:
        return
    found = content_digest({name: tensor_digest(x) for name, x in tensors.items()}, metadata)
    require_digest(path, found, metadata[CONTENT])


def require_digest(path: Any, found: str, stored: str) -> None:
    """Raises UserError where the two digests of the file `path` differ."""
    if found != stored:
        raise UserError(
            f"{path}: damaged or changed since it was written, its content is not that of its "
            "SHA-256: get a whole copy, or write it again"
        )


def tell_without_digest(*paths: Any) -> None:
    """Notes that damage in files would not be noticed; after reading, so that errors come alone."""
    for path in paths:
        note(f"{path}: carries no digest of its weights, so damage in it cannot be noticed")
