"""A model's prediction as it was traced, kept beside the compiled programs.

To trace a model takes longer than to look at an image, and as long again to ask it for the shapes
of its variables.
"""

import contextlib
import functools
import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import ml_collections
import numpy as np

from stlm_jax.inference.predict_fn import make_predict_fn
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.compilation import jit
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.weights.load import Variables

OUTPUTS = ("map", "score")  # maps without FA are evaluation's; XLA leaves out what nobody asks for
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Traced:
    """A traced prediction.

    Attributes:
        variables: shapes and dtypes of those that it takes.
        predict: of variables and images (N, S, S, 3) uint8, for any N, the `OUTPUTS` of what
            `make_predict_fn` gives at the size (S, S).
    """

    variables: Variables
    predict: Callable[[Variables, np.ndarray], dict[str, jax.Array]]


def shapes(config: ml_collections.ConfigDict, model: Stlm) -> Variables:
    """`variable_shapes`, without asking the model where its prediction is kept."""
    known = _kept(_file(config, model))
    return known.variables if known else variable_shapes(model)


def prediction(config: ml_collections.ConfigDict, model: Stlm) -> Traced:
    """The prediction at `config.image_size`, which is kept where compiled programs are."""
    file, size = _file(config, model), config.image_size
    known = _kept(file)
    if known:
        return known
    predict, variables = _outputs(make_predict_fn(config, model), size), variable_shapes(model)
    if file is None:
        return Traced(variables, jit(predict))
    (count,) = jax.export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((count, size, size, 3), np.uint8)
    traced = jax.export.export(jax.jit(predict))(variables, images)
    content = gzip.compress(traced.serialize(), mtime=0)
    with contextlib.suppress(OSError):  # it is the next start's loss only
        write_atomically(file, content)
    return _read(content)


@functools.lru_cache(maxsize=8)  # of one function jax keeps what it has traced and compiled
def _outputs(predict: Callable, size: int) -> Callable:
    def of_square(variables: Variables, images: np.ndarray) -> dict[str, jax.Array]:
        found = predict(variables, images, (size, size))
        return {name: found[name] for name in OUTPUTS}

    return of_square


def _kept(file: Path | None) -> Traced | None:
    if file is None:
        return None
    try:
        return _read(file.read_bytes())
    except Exception:  # gzip notices damage, and JAX has its own errors for what it cannot read
        return None


@functools.lru_cache(maxsize=8)  # of one function jax keeps what it has compiled
def _read(content: bytes) -> Traced:
    exported = jax.export.deserialize(bytearray(gzip.decompress(content)))
    (variables, _), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    return Traced(leaves, jit(exported.call))


def _file(config: ml_collections.ConfigDict, model: Stlm) -> Path | None:
    """Where a prediction is kept; None where nothing is."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        return None
    made_with = (
        model,
        config.image_size,
        config.evaluate.score_top_k,
        config.precision,
        jax.default_backend(),
        jax.config.values["jax_enable_x64"],
        jax.config.values["jax_default_matmul_precision"],
        *(library.__version__ for library in (jax, jaxlib, flax)),
        _sources(),
    )
    key = hashlib.sha256(repr(made_with).encode()).hexdigest()
    return path_of(folder) / f"traced-{key[:32]}.gz"


@functools.cache
def _sources() -> str:
    """SHA-256 of this package's code, any line of which may have a part in what is traced."""
    digest: Any = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
