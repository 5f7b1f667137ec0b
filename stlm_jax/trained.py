"""A trained model, from wherever it is kept: a run's folder, a weights file, a published file."""

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections

from stlm_jax import config as configuration
from stlm_jax import run_info
from stlm_jax.checkpoint import Checkpoints
from stlm_jax.errors import UserError
from stlm_jax.initialization import variable_shapes
from stlm_jax.models.build import build_stlm
from stlm_jax.models.stlm import Stlm
from stlm_jax.train_state import TrainState, abstract_train_state
from stlm_jax.weights import check_tree
from stlm_jax.weights_file import is_ours, read_weights

CHECKPOINTS = "checkpoints"  # the folder of a category's checkpoints

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A student ready for inference.

    Attributes:
      model: the network.
      variables: its `params` and `batch_stats`.
      config: the configuration that it was trained with, or the published one with its widths.
      category: what it was trained on; empty where that is not known.
      threshold: score from which an image is anomalous, None where it was never estimated.
      normaliser: divides scores, None likewise.
    """

    model: Stlm
    variables: Variables
    config: ml_collections.ConfigDict
    category: str = ""
    threshold: float | None = None
    normaliser: float | None = None


def load_trained(
    path: str | Path, segmentation: str | Path | None = None, image_size: int | None = None
) -> Trained:
    """Loads a trained student.

    Args:
      path: a category's folder of a run (`WORKDIR/CATEGORY`, or `WORKDIR` if the run has only
        one), a weights file of this package, or a published torch file (`.pt`, `.pth`,
        `.safetensors`) of the two-stream model.
      segmentation: the published torch file of the FA module, where it is a file of its own.
      image_size: side in pixels; default: the one of training, 1024 where that is not known.

    Raises:
      UserError: there is nothing of the kind at `path`, or it is damaged or of another model.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; give a run's category folder or a file")
    if path.is_dir():
        trained = _from_run(path)
    elif is_ours(path):
        trained = _from_weights_file(path)
    else:
        from conversion.from_torch import read_stlm  # needs the extra `stlm_jax[convert]`

        trained = of_variables(path, read_stlm(path, segmentation))
    if image_size is not None:
        check_image_size(image_size)
        trained.config.image_size = image_size
    return trained


def check_image_size(size: int) -> None:
    """Raises UserError unless `size`, in pixels, is one that the networks take."""
    if size <= 0 or size % 16:
        raise UserError(f"image size {size}: must be a positive multiple of 16")


def of_variables(path: str | Path, variables: Variables, **known: Any) -> Trained:
    """A model whose widths are those of `variables`; `path` is named in errors."""
    from conversion import layouts

    try:
        config = layouts.stlm_config(layouts.used_shapes(variables))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    model = build_stlm(config)
    check_tree(path, variables, variable_shapes(model))
    return Trained(model, variables, config, **known)


def restore(folder: Path, template: TrainState) -> tuple[int, Variables]:
    """Step and variables of the newest checkpoint in a category's `folder`.

    Raises:
      UserError: there is no checkpoint, or it is of another model.
    """
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        restored = checkpoints.restore(template)
    if restored is None:
        raise UserError(f"{folder}: there is no checkpoint; train first (--mode=train)")
    return restored.step, restored.state.variables()


def _from_run(folder: Path) -> Trained:
    if (folder / run_info.CONFIG_NAME).is_file():
        trained = sorted(child.parent for child in folder.glob(f"*/{CHECKPOINTS}"))
        if len(trained) != 1:
            names = ", ".join(child.name for child in trained) or "none"
            raise UserError(f"{folder}: give one category's folder inside it (trained: {names})")
        folder = trained[0]
    if not (folder / CHECKPOINTS).is_dir():
        raise UserError(f"{folder}: not a run's category folder, it holds no {CHECKPOINTS}/")
    config = configuration.default()
    with config.unlocked():
        config.update(run_info.read_config(folder.parent / run_info.CONFIG_NAME))
    model = build_stlm(config)
    _, variables = restore(folder, abstract_train_state(config, model))
    return Trained(model, variables, config, category=folder.name)


def _from_weights_file(path: Path) -> Trained:
    weights = read_weights(path)
    if weights.metadata.get("kind") != "stlm":
        raise UserError(f"{path}: holds a {weights.metadata.get('kind')} model, not a trained STLM")
    trained = of_variables(path, weights.variables, category=weights.metadata.get("category", ""))
    trained.config.image_size = int(weights.metadata.get("image_size", trained.config.image_size))
    return trained
