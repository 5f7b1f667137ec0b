"""Makes `stlm_jax/assets/demo_student.safetensors`, the STLM that the demo's students start from.

`python -m stlm_jax.commands.pretrain_demo_student` draws good images of everything but the demo's
categories, trains one STLM on them by the ordinary training, and writes its weights in float16.
Stopped and run again, it goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import traverse_util

from stlm_jax.inference.trained_model import load_trained
from stlm_jax.main import STOPPED
from stlm_jax.pretraining import good_images
from stlm_jax.runtime.exit_status import exit_status
from stlm_jax.runtime.process import prepare
from stlm_jax.runtime.progress import note
from stlm_jax.settings import Settings, parse
from stlm_jax.training.train import train
from stlm_jax.weights.file import Entry, write_weights
from stlm_jax.weights.load import DEMO_STUDENT
from stlm_jax.workdir import COMPILATION_CACHE

CONFIG = "configs/demo_student.py"
IMAGES = 2000


def write_half(trained: Path, output: Path) -> None:
    """Writes the model of a run's category folder as a weights file in float16."""
    flat = traverse_util.flatten_dict(load_trained(trained).variables, sep="/")

    def entry(name: str) -> Entry:
        return name, flat[name].shape, np.float16, lambda: np.asarray(flat[name])

    write_weights(output, map(entry, sorted(flat)), {"kind": "stlm"})


def pretrain(settings: Settings, images: int, output: Path) -> None:
    """Draws so many images into the settings' `data.root`, trains on them, writes the weights."""
    good_images.write_set(Path(settings.config.data.root), images, settings.config.seed)
    train(settings.config, settings.workdir, settings.command)
    write_half(settings.workdir / good_images.CATEGORY, output)
    note(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")


def run(command_line: Sequence[str]) -> None:
    """Runs the script with the command line, whose first element is the program's name."""
    parser = argparse.ArgumentParser(
        prog="python -m stlm_jax.commands.pretrain_demo_student",
        description="Train the STLM that the demo's students start from.",
        epilog="All other options are those of stlm_jax.main.",
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="how many to train on")
    parser.add_argument("--output", type=Path, default=DEMO_STUDENT, help="the file to write")
    arguments, rest = parser.parse_known_args(command_line[1:])
    settings = parse([parser.prog, f"--config={CONFIG}", *rest])
    if settings is not None:
        prepare(settings.config.precision, settings.workdir / COMPILATION_CACHE)
        pretrain(settings, arguments.images, arguments.output)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: run(sys.argv), STOPPED))
