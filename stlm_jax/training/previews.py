"""Pictures of what a training step was shown, for TensorBoard."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from stlm_jax.drawing.panel import draw_panel
from stlm_jax.models.segmentation import upsample_map
from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.compilation import compile_apart, jit
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.interrupt import Interrupted
from stlm_jax.runtime.metric_writer import MetricWriter
from stlm_jax.runtime.progress import note
from stlm_jax.training.state import TrainState
from stlm_jax.training.step import draw_samples

_MOST_IMAGES = 4


class Previews:
    """The pseudo-anomalous images of every so many steps, with their masks and the model's maps.

    They are computed anew from the state that a step gave and the batch that it took, by a program
    of their own; training draws no number for them and its program stays the same.
    """

    def __init__(self, config: ml_collections.ConfigDict, model: Stlm):
        """Previews every `config.log.images_every_steps` steps; never where that is 0."""
        self._every = config.log.images_every_steps
        self._preview = jit(make_preview_fn(model))
        self._compiled = False

    def due(self, step: int) -> bool:
        """Whether step number `step`, from 1, is to be shown."""
        return self._every > 0 and step % self._every == 0

    def write(
        self,
        writer: MetricWriter,
        step: int,
        state: TrainState,
        batch: dict,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Writes the images `preview/<number>` of the step that took `batch` and gave `state`.

        There are none where `stop` ends the compilation of their program: it is time to save.
        """
        if not writer.takes_images:
            return
        try:
            if not self._compiled:
                compile_apart(self._preview, state, batch, stop=stop)
        except Interrupted:
            return
        self._compiled = True
        shown = jax.device_get(self._preview(state, batch))
        try:
            panels = {
                f"preview/{index}": np.asarray(draw_panel(image, mask, map_, f"step {step}"))
                for index, (image, mask, map_) in enumerate(zip(*shown, strict=True))
            }
        except UserError as error:  # pictures need an optional library, training does not
            note(f"no previews: {error}")
            self._every = 0
            return
        writer.write_images(step, panels)


def make_preview_fn(model: Stlm):
    """Makes `preview(state, batch) -> (image, mask, map)` of a step's first images, to be jitted.

    `state` is what the step gave, `batch` what it took, as in `train_step`. The image is
    (n, H, W, 3) uint8, mask and map are (n, H, W) float32; the map is that of the state's running
    statistics, as in evaluation.
    """

    def preview(state: TrainState, batch: dict) -> tuple[jax.Array, jax.Array, jax.Array]:
        # `state` is what the step gave; its draws were made with the key of the state before.
        key = state.replace(step=state.step - 1).step_key()
        _, sample = draw_samples(key, batch, state.hyper)
        image, mask = sample.image[:_MOST_IMAGES], sample.mask[:_MOST_IMAGES]
        prediction: Any = model.apply(state.student(), image)
        height, width = image.shape[1:3]
        full = upsample_map(prediction.map, (height, width))
        return jnp.round(image).astype(jnp.uint8), mask, full

    return preview
