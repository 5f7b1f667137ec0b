"""Writes the folder: the page, the model and what runs it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import PIL

from conversion.onnx.export import export_onnx
from conversion.web.runtime import VERSION
from stlm_jax.drawing import colours
from stlm_jax.inference.onnx_model import INPUT, OUTPUTS
from stlm_jax.inference.trained_model import TrainedModel
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json, write_atomically, write_json
from stlm_jax.weights.description import export_metadata
from stlm_jax.weights.digest import FILE
from stlm_jax.weights.file import FORMAT

MODEL, DESCRIPTION = "model.onnx", "description.json"
_PAGE = Path(__file__).with_name("page")
_COLOURS = Path(colours.__file__).with_name("inferno.png")


def page_files() -> dict[str, bytes]:
    """The files of the page, by name, that are the same for every model."""
    paths = {str(path.relative_to(_PAGE)): path for path in sorted(_PAGE.rglob("*.*"))}
    return {name: path.read_bytes() for name, path in (paths | {_COLOURS.name: _COLOURS}).items()}


def check_folder(folder: Path) -> None:
    """Raises UserError unless `folder` is new, empty, or an older export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the name of a folder")
    if any(folder.iterdir()) and not _is_export(folder / DESCRIPTION):
        raise UserError(f"{folder}: holds other files; give a folder that is new or empty")


def _is_export(path: Path) -> bool:
    try:
        return read_json(path).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def export_web(
    trained: TrainedModel,
    folder: Path,
    runtime: Mapping[str, bytes],
    precision: str = "float32",
    verify: bool = True,
) -> tuple[dict[str, float], dict[str, int]]:
    """Writes the folder, after the model's comparison with Flax as `export_onnx` makes it.

    Args:
        trained: the model.
        folder: what `check_folder` accepts.
        runtime: onnxruntime-web, of `runtime.runtime_files`.
        precision: 'float32' or 'float16'.
        verify: whether to compare.

    Returns:
        The figures of `export_onnx`, and every file's size in bytes by name.
    """
    figures = export_onnx(trained, folder / MODEL, precision, verify)
    content = (folder / MODEL).read_bytes()
    files = {**runtime, **page_files()}
    sizes = {MODEL: len(content)} | {name: len(files[name]) for name in files}
    known = trained.description
    limit = known.calibration.pixel_threshold if known.calibration else None
    description = {
        **export_metadata(known, trained.variables, precision),
        "input": INPUT,
        "outputs": list(OUTPUTS),
        "colour_scale": list(colours.Scale.of(limit).ticks),
        "pillow": PIL.__version__,  # whose resizing the page does
        "onnxruntime_web": VERSION,
        "files": sizes,
        FILE: hashlib.sha256(content).hexdigest(),
    }
    for name, bytes_ in files.items():
        write_atomically(folder / name, bytes_)
    # Last, so that the page refuses a folder that was written in part: the digest is of another.
    path = write_json(folder / DESCRIPTION, description)
    return figures, sizes | {DESCRIPTION: path.stat().st_size}
