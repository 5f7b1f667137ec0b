"""The file of weights: safetensors, tensors named 'params/encoderT/…/kernel' in Flax's axis order.

Tensors of a published checkpoint that STLM does not compute with are kept under 'unused/<torch
name>', in torch's axis order. The metadata say `format` = 'stlm_jax', `kind` = 'sam' or 'stlm',
`layout` = the published layout that it came from or '', `format_version`, `version` of the package,
`content_sha256` = a digest of all of it (`digest.content_digest`), which readers check, and what a
writer adds.
"""

import dataclasses
import functools
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from stlm_jax import __version__
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import open_atomically, parsed_json
from stlm_jax.runtime.paths import local_copy
from stlm_jax.runtime.progress import track
from stlm_jax.weights.digest import (
    CONTENT,
    LENGTH,
    check_content,
    content_digest,
    tell_without_digest,
    tensor_digest,
)
from stlm_jax.weights.shapes import require_finite

FORMAT = "stlm_jax"
FORMAT_VERSION = 1  # of files that say no number, too: those of the last release
KINDS = ("sam", "stlm")
UNUSED_FOLDER = "unused/"

_CODES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int64): "I64",
}
_READABLE = {"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"}
_LENGTH = struct.Struct("<Q")  # of the header, which the file begins with

# A tensor to write: name, shape, dtype (float32, float16, bfloat16 or int64), and a function that
# gives the array, which is cast to the dtype.
Entry = tuple[str, tuple[int, ...], Any, Callable[[], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """Shape known, content read by `np.asarray(tensor, dtype)`, each time anew.

    What `read` gives may be a view of a memory-mapped file. Numbers that are not finite are a
    UserError that names `path` and the tensor's `name` there.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    path: object = ""
    name: str = ""

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """NumPy's protocol."""
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            array = np.array(self.read(), dtype, copy=copy)
        require_finite(self.path, self.name, array)
        return array


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        variables: {'params': …, 'batch_stats': …}, nested, float32 NumPy leaves.
        unused: published name to array, float32 or int64, in torch's axis order.
        metadata: of the file.
    """

    variables: dict[str, Any]
    unused: dict[str, np.ndarray]
    metadata: dict[str, str]


def write_safetensors(
    path: str | Path, tensors: Iterable[Entry], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Writes a safetensors file, whole or not at all, with one tensor in memory at a time.

    The library's own writer wants all of them at once, which for ViT-H is twice the file. Where
    the metadata have an entry `digest.CONTENT`, the digest is put there. Returns the metadata.
    """
    metadata = dict(metadata)
    if CONTENT in metadata:
        metadata[CONTENT] = "0" * LENGTH  # the place is kept until the tensors were written
    # Wide types first, so that every tensor is aligned.
    entries = sorted(tensors, key=lambda entry: -np.dtype(entry[2]).itemsize)
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, shape, dtype, _ in entries:
        if name in header:
            raise ValueError(f"two tensors are named {name}")
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        code = _CODES[np.dtype(dtype)]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _LENGTH.size)
    digests: dict[str, str] = {}
    with open_atomically(path) as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for name, shape, dtype, read in track(entries, Path(path).name, unit="tensor"):
            array = np.asarray(read(), dtype, order="C")
            if array.shape != tuple(shape):
                raise ValueError(f"{name}: announced as {shape}, but it is {array.shape}")
            file.write(array.reshape(-1).view(np.uint8).data)
            if CONTENT in metadata:
                digests[name] = tensor_digest(array)
        if CONTENT in metadata:
            before = f'"{CONTENT}": "'.encode()
            file.seek(_LENGTH.size + text.index(before) + len(before))
            metadata[CONTENT] = content_digest(digests, metadata)
            file.write(metadata[CONTENT].encode())
    return metadata


def write_weights(path: str | Path, tensors: Iterable[Entry], metadata: Mapping[str, str]) -> None:
    """Writes a weights file; of the metadata `kind` at least must be given."""
    if metadata["kind"] not in KINDS:
        raise ValueError(f"kind {metadata['kind']!r}: must be one of {KINDS}")
    added = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "version": __version__}
    write_safetensors(path, tensors, {"layout": "", **metadata, **added, CONTENT: ""})


def open_safetensors(path: str | Path) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors of any safetensors file, memory-mapped, and its metadata.

    Where there is a digest among the metadata, the content must be of it.
    """
    try:
        file = safe_open(str(local_copy(path)), framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated, or not a safetensors file ({error})") from error
    tensors = {}
    for name, tensor in slices.items():
        if tensor.get_dtype() not in _READABLE:
            raise UserError(f"{path}: {name} is {tensor.get_dtype()}; store it as float32")
        tensors[name] = LazyTensor(
            tuple(tensor.get_shape()), functools.partial(file.get_tensor, name), path, name
        )
    metadata = file.metadata() or {}
    check_content(path, tensors, metadata)
    return tensors, metadata


def check_format(path: str | Path, metadata: Mapping[str, Any], kind: str) -> None:
    """Raises UserError unless a file's metadata say that it is ours, of `kind`, and can be read."""
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not {kind}")
    number = str(metadata.get("format_version", FORMAT_VERSION))
    if not number.isdecimal() or int(number) != FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {number}, which this stlm_jax {__version__} does not know "
            f"(it reads {FORMAT_VERSION}): update stlm_jax"
        )


def open_weights(
    path: str | Path,
) -> tuple[dict[str, LazyTensor], dict[str, LazyTensor], dict[str, str]]:
    """A weights file, memory-mapped: variables by 'params/…/leaf', unused tensors, metadata."""
    tensors, metadata = open_safetensors(path)
    check_format(path, metadata, f"a weights file of {FORMAT}")
    if metadata.get("kind") not in KINDS:
        raise UserError(f"{path}: its kind is {metadata.get('kind')!r}, none of {', '.join(KINDS)}")
    unused = dict.fromkeys(name for name in tensors if name.startswith(UNUSED_FOLDER))
    variables = {name: tensor for name, tensor in tensors.items() if name not in unused}
    return variables, {n.removeprefix(UNUSED_FOLDER): tensors[n] for n in unused}, metadata


def read_weights(path: str | Path) -> Weights:
    """Reads a weights file; half-precision tensors become float32."""
    lazy, lazy_unused, metadata = open_weights(path)
    variables = {name: np.asarray(tensor, np.float32) for name, tensor in lazy.items()}
    unused = {name: np.asarray(tensor) for name, tensor in lazy_unused.items()}
    for name, array in unused.items():
        if not np.issubdtype(array.dtype, np.integer):
            unused[name] = array.astype(np.float32)
    nested = nest(path, variables)
    if CONTENT not in metadata:
        tell_without_digest(path)
    return Weights(nested, unused, metadata)


def nest(path: str | Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors named 'params/…/leaf' or 'batch_stats/…/leaf' as a nested dictionary."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if not re.fullmatch(r"(params|batch_stats)(/[^/]+){2,}", name):
            raise UserError(f"{path}: {name} is no variable; not a weights file of {FORMAT}")
        *modules, leaf = name.split("/")
        place = tree
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = tensor
    return tree


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do; it may be truncated."""
    return _header(path) is not None


def is_ours(path: str | Path) -> bool:
    """Whether `path` is a weights file of this package; it may be truncated."""
    metadata = (_header(path) or {}).get("__metadata__")
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT


def _header(path: str | Path) -> dict[str, Any] | None:
    try:
        local = local_copy(path)
        with open(local, "rb") as file:
            length = _LENGTH.unpack(file.read(_LENGTH.size))[0]
            if length > local.stat().st_size or file.read(1) != b"{":
                return None
            return parsed_json(b"{" + file.read(length - 1))
    except (OSError, struct.error, ValueError):
        return None
