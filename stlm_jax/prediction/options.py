"""What the command line of a prediction may say; argparse only, so that `--help` is quick."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PNG16, TIFF, NPY, NONE = "png16", "tiff", "npy", "none"
SKIP, STOP = "skip", "stop"
WATCHED_ONLY = ("done", "settle", "poll")  # options that mean nothing without --watch
_SETTLE, _POLL = 0.5, 0.2  # seconds


@dataclasses.dataclass(frozen=True)
class Options:
    """A prediction.

    Attributes:
        model: a workdir, a category's folder, or a file of a model.
        inputs: files, folders, globs, patterns of numbered frames; `-` is a list of paths on stdin.
        output: the folder of the results.
        category: of a workdir that has several.
        segmentation: the FA module's torch file, where it is a file of its own.
        image_size: side in pixels of what the network sees; None: the model's own.
        recursive: whether folders are read with their sub-folders.
        maps: `none`, `png16`, `tiff` or `npy`.
        overlays: whether pictures of the maps over the images are written.
        min_area: of regions, in pixels of the input.
        on_error: `skip` or `stop`.
        overwrite: whether earlier results in `output` are thrown away.
        batch: images in a call of the model; None: what suits the device.
        quiet: whether no line is printed for an image.
        watch: whether the one folder is watched for new files.
        done: where watched files go; None: `done` in the folder.
        settle: seconds that a watched file has to be still.
        poll: seconds between looks at the folder.
    """

    model: str
    inputs: tuple[str, ...]
    output: Path = Path("predictions")
    category: str = ""
    segmentation: str | None = None
    image_size: int | None = None
    recursive: bool = False
    maps: str = NONE
    overlays: bool = False
    min_area: int = 1
    on_error: str = SKIP
    overwrite: bool = False
    batch: int | None = None
    quiet: bool = False
    watch: bool = False
    done: Path | None = None
    settle: float = _SETTLE
    poll: float = _POLL

    @classmethod
    def of(cls, refuse: Callable[[str], Any], arguments: argparse.Namespace) -> Self:
        """The options that `add_options` had parsed; `refuse`, where they do not agree, raises."""
        given = {f.name: getattr(arguments, f.name, None) for f in dataclasses.fields(cls)}
        given["inputs"] = tuple(arguments.inputs)
        if not arguments.watch:
            for name in WATCHED_ONLY:
                if given[name] is not None:
                    refuse(f"--{name} goes with --watch")
        elif len(arguments.inputs) != 1 or arguments.inputs[0] == "-":
            refuse("--watch goes with one INPUT, the folder or pattern that new files come into")
        if arguments.inputs.count("-") > 1:
            refuse("INPUT - is given twice: stdin is read once")
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def of_results(self) -> dict[str, Any]:
        """Those that a result depends on; to be equal in all that is in one `output`."""
        names = ("image_size", "maps", "overlays", "min_area")
        return {name: getattr(self, name) for name in names}


def _number(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not {least:g} or more")
        return value

    parse.__name__ = kind.__name__  # which argparse names where `kind` refuses
    return parse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `Options.of` takes."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a workdir, a category's folder in it, or a file: "
        ".safetensors, .pt, .onnx, .xml, .stablehlo")  # fmt: skip
    add("inputs", nargs="+", metavar="INPUT", help="a file, a folder, a glob in quotes, a "
        "pattern of numbered frames (in/%%06d.png), or - for a list of paths on stdin")  # fmt: skip
    add("--output", type=Path, metavar="DIR", help="of the results (default: predictions)")
    add("--category", metavar="NAME", help="of a workdir that has several")
    add("--recursive", action="store_true", help="read sub-folders too")
    add("--maps", choices=(NONE, PNG16, TIFF, NPY), help="write anomaly maps, in the images' own "
        "size: 16-bit PNG, or float32 as TIFF or .npy (default: none)")  # fmt: skip
    add("--overlays", action="store_true", help="write the maps laid over the images, as PNG")
    add("--min_area", type=_number(int, 1), metavar="PIXELS", help="of the regions that are listed "
        "(default: 1)")  # fmt: skip
    add("--on_error", choices=(SKIP, STOP), help="at a file that cannot be judged (default: skip)")
    add("--overwrite", action="store_true", help="begin anew in an output that has results")
    add("--batch", type=_number(int, 1), metavar="N", help="images in a call of the model (default:"
        " 8 on an accelerator, 1 on a CPU or with --watch)")  # fmt: skip
    add("--image_size", type=_number(int, 16), metavar="PIXELS", help="side of what the network "
        "sees, where the file does not say it")  # fmt: skip
    add("--segmentation", metavar="FILE", help="the published torch file of the FA module")
    add("--quiet", action="store_true", help="print no line for an image")
    watching = parser.add_argument_group("a folder that a camera fills")
    add = watching.add_argument
    add("--watch", action="store_true", help="judge new files of INPUT, a folder or a pattern in "
        "one, as they become complete, and move them away, until SIGTERM or Ctrl-C")  # fmt: skip
    add("--done", type=Path, metavar="DIR", help="where they go (default: INPUT/done); those that "
        "cannot be judged go to INPUT/failed")  # fmt: skip
    add("--settle", type=_number(float, 0), metavar="SECONDS", help="that size and time of a "
        f"complete file have not changed (default: {_SETTLE})")  # fmt: skip
    add("--poll", type=_number(float, 0.01), metavar="SECONDS", help="between two looks at the "
        f"folder (default: {_POLL})")  # fmt: skip
