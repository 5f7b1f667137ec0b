"""An exported StableHLO file, run by JAX."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.description import Description
from stlm_jax.weights.digest import CONTENT, FILE, require_digest, tell_without_digest
from stlm_jax.weights.sidecar import read_sidecar, sidecar_path

SUFFIX = ".stablehlo"


class StablehloModel:
    """A detector's StableHLO, made by `conversion.to_stablehlo`, with the JSON file beside it.

    Attributes:
        description: category, image size, geometry and thresholds.
    """

    def __init__(self, path: str | Path):
        """Opens a file, whose content must be that of the digest beside it."""
        import jax  # here: files of other kinds are run without

        from stlm_jax.runtime.compilation import jit

        try:
            content = path_of(path).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        described = read_sidecar(path)
        if not described:
            raise UserError(f"{path}: its description, {sidecar_path(path)}, is not beside it")
        if FILE in described:
            require_digest(path, file_digest(content), described[FILE])
        missing = {path: FILE, sidecar_path(path): CONTENT}
        tell_without_digest(*(p for p, name in missing.items() if name not in described))
        self.description = Description.read(sidecar_path(path), described)
        try:
            self._call = jit(jax.export.deserialize(bytearray(content)).call)
        except Exception as error:  # whatever JAX raises on a file that is none of its
            raise UserError(f"{path}: JAX cannot read it ({first_line(error)})") from error

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """`map` (N, S, S), `score` (N,) of uint8 (N, S, S, 3); S is the image size."""
        anomaly_map, score = self._call(images)
        return {"map": anomaly_map, "score": score}


def file_digest(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
