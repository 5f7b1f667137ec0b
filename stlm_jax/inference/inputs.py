"""The images that prediction reads, and where its pictures and tables of them go."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from stlm_jax.data.folders import by_number, files_below, is_image
from stlm_jax.drawing.overlay import ENDINGS
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.paths import is_taken, path_of
from stlm_jax.runtime.progress import note
from stlm_jax.runtime.text import printable
from stlm_jax.workdir import SCORES_CSV, SCORES_JSON

_LONGEST = 225  # bytes of a name: with an ending, and while it is written, file systems take 255
_KEPT = 190  # of a longer one


class Input(NamedTuple):
    """An image to predict.

    Attributes:
        path: its file.
        name: of its pictures below the output folder, without their endings: the image's own path
            below the input folder, suffix included, so no two images share one.
    """

    path: Path
    name: str


def find_inputs(name: str, output: Path) -> list[Input]:
    """The image that `config.predict.input` names, or those of the folder and its sub-folders.

    Sorted as people count. The folder `output` is left out where it lies inside; what is no image
    is noted.
    """
    if not name:
        raise UserError(
            "config.predict.input is empty: give an image or a folder, --config.predict.input=PATH"
        )
    root = path_of(name)
    if root.is_file():
        return [Input(root, _fitting(root.name))]
    if not root.is_dir():
        raise UserError(f"config.predict.input={name}: no such file or folder")
    if output.resolve() == root.resolve():
        raise UserError(
            f"config.predict.output={output}: is the folder of the images, and the pictures would "
            "be taken for images the next time; give another"
        )
    files = sorted(files_below(root, output.resolve()), key=by_number)
    images = [Input(p, _fitting(p.relative_to(root).as_posix())) for p in files if is_image(p)]
    others = [p.relative_to(root).as_posix() for p in files if not is_image(p)]
    if others:
        shown = ", ".join(map(printable, others[:3])) + ", …" * (len(others) > 3)
        note(
            f"warning: {root}: {len(others)} of {len(files)} files are no images by their suffix, "
            f"or are no files, and are passed over: {shown}"
        )
    if not images:
        raise UserError(f"config.predict.input={name}: the folder holds no image")
    return images


def _fitting(name: str) -> str:
    """A path, its last part cut to leave room for endings, and told apart by a digest then."""
    last = name.rpartition("/")[2]
    encoded = os.fsencode(last)
    if len(encoded) <= _LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    cut = encoded[:_KEPT].decode("utf-8", "ignore")
    return f"{name.removesuffix(last)}{cut}~{digest}"


def check_output(folder: Path, inputs: Sequence[Input], overwrite: bool) -> None:
    """Raises UserError where prediction would write over something, before there is any work."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"config.predict.output={folder}: is a file; give a folder")
    tables = (SCORES_CSV, SCORES_JSON)
    files = [*tables, *(f"{one.name}{ending}" for one in inputs for ending in ENDINGS.values())]
    # A folder of images may be called as the picture of one is: a/ beside an image a's.
    folders = {str(above) for one in inputs for above in PurePosixPath(one.name).parents}
    for file in files:
        if file in folders:
            raise UserError(
                f"config.predict.input: its folder {printable(file)} has the name of a file that "
                f"prediction writes into {folder}; rename it"
            )
    if not folder.is_dir():
        return
    for above in folders:
        if is_taken(folder / above) and not (folder / above).is_dir():
            raise UserError(
                f"{printable(folder / above)} is a file, and pictures want a folder there: give "
                "another folder, --config.predict.output=DIR"
            )
    for file in files:
        path = folder / file
        if is_taken(path) and not (overwrite and path.is_file()):
            raise UserError(
                f"{printable(path)} is there, of an earlier prediction: give another folder, "
                "--config.predict.output=DIR, or write over it with --config.predict.overwrite=True"
            )
