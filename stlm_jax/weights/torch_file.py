"""Opening published checkpoints: `.pt`, `.pth` or `.safetensors`, memory-mapped, never executed.

Those that `conversion.to_torch` wrote hold metadata too, text by name as a `.safetensors` has them.
In a torch file they are an attribute of the state dict, which is an OrderedDict: its entries are
the published tensors and nothing else, for those who load it into the published model.
"""

import io
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import local_copy
from stlm_jax.weights.archive import require_honest_sizes
from stlm_jax.weights.digest import check_content
from stlm_jax.weights.file import LazyTensor, is_ours, is_safetensors, open_safetensors

WRAPPERS = ("state_dict", "model")  # keys under which training scripts keep the state dict
PARALLEL_PREFIX = "module."  # what torch's DataParallel puts before every name
METADATA = "stlm_jax_metadata"  # the attribute of a state dict

_READABLE = {  # types of tensors
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
}  # fmt: skip
_ZIP = b"PK\x03\x04"


class StateDict(NamedTuple):
    """What a published checkpoint holds: tensors and, if `conversion.to_torch` wrote it, more."""

    tensors: dict[str, LazyTensor]
    metadata: dict[str, str]


def open_state_dict(path: str | Path) -> StateDict:
    """The tensors of a published checkpoint by name; wrapping keys and prefixes are taken off.

    Only the tensors that are read come into memory, but for files that torch wrote before 1.6.
    Where there is a digest among the metadata, the content must be of it.
    """
    if is_ours(path):
        raise UserError(f"{path}: already a weights file of stlm_jax, not a published checkpoint")
    if Path(path).suffix == ".safetensors" or is_safetensors(path):
        tensors, metadata = open_safetensors(path)
    else:
        tensors, metadata = _open_torch(path)
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    if all(name.startswith(PARALLEL_PREFIX) for name in tensors):
        tensors = {name.removeprefix(PARALLEL_PREFIX): x for name, x in tensors.items()}
    return StateDict(tensors, metadata)


class _Bounded(io.BufferedReader):
    """Reads no more than there is, for which a damaged length would take memory."""

    def read(self, size: int | None = -1) -> bytes:
        """As of its base."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, max(0, left)))


def _open_torch(path: str | Path) -> StateDict:
    loaded = _load(path)
    while isinstance(loaded, Mapping):
        inner = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inner:
            break
        loaded = inner[0]
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict of tensors")
    tensors = {str(name): _tensor(path, name, value) for name, value in loaded.items()}
    stored = getattr(loaded, METADATA, {})
    metadata = {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}
    check_content(path, tensors, metadata)
    return StateDict(tensors, metadata)


def _load(path: str | Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: needs torch; pip install 'stlm_jax[convert]'") from None
    try:
        local = local_copy(path)
        options: Any = {"map_location": "cpu", "weights_only": True}
        with _Bounded(io.FileIO(local)) as file, warnings.catch_warnings(action="ignore"):
            if file.peek(len(_ZIP))[: len(_ZIP)] != _ZIP:
                return torch.load(file, **options)  # older files cannot be memory-mapped
            require_honest_sizes(local)
            return torch.load(local, mmap=True, **options)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise UserError(
            f"{path}: damaged, or holds Python objects{what}, which are never executed; "
            "save the model's state_dict() alone"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # torch's own of damaged archives name no file
        reason = first_line(error).split(". ")[0]
        raise UserError(f"{path}: truncated, or not a torch checkpoint ({reason})") from error


def _tensor(path: str | Path, name: Any, value: Any) -> LazyTensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise UserError(f"{path}: {name} is a {type(value).__name__}, not a tensor")
    plain = value.layout == torch.strided and value.device.type == "cpu"
    # A tensor may say that it is larger than what is stored: one number, at all its places.
    if (
        not plain
        or str(value.dtype).removeprefix("torch.") not in _READABLE
        or value.numel() * value.element_size() > value.untyped_storage().nbytes()
    ):
        raise UserError(f"{path}: {name} is not a plain tensor of numbers")

    def read() -> np.ndarray:
        tensor = value.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    return LazyTensor(tuple(value.shape), read, path, str(name))
