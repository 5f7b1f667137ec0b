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
        if self._every and jax.process_count() > 1:
            note(
                f"warning: config.log.images_every_steps={self._every}: previews are drawn by "
                "trainings in one process only, there will be none"
            )
            self._every = 0
        self._preview = jit(make_preview_fn(model), static_argnums=2)
        self._compiled: set[tuple[int, int]] = set()

    def due(self, step: int) -> bool:
        """Whether step number `step`, from 1, is to be shown."""
        return self._every > 0 and step % self._every == 0

    def write(
        self,
        writer: MetricWriter,
        step: int,
        states: TrainState,
        batch: dict,
        place: tuple[int, int] = (0, 0),
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Writes the images `preview/<number>` of a step of the member at a place.

        There are none where `stop` ends the compilation of their program: it is time to save.

        Args:
            writer: the member's.
            step: number of the step, from 1.
            states: what the step gave, leaves (groups, members of a group, …).
            batch: what it took, leaves (groups, …).
            place: group, and which of its members.
            stop: looked at while compiling.
        """
        if not writer.takes_images:
            return
        try:
            if place not in self._compiled:
                compile_apart(self._preview, states, batch, place, stop=stop)
        except Interrupted:
            return
        self._compiled.add(place)
        shown = jax.device_get(self._preview(states, batch, place))
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
    """Makes `preview(states, batch, place) -> (image, mask, map)` of a step's first images.

    It is to be jitted, `place` being static; see `Previews.write`. The image is
    (n, H, W, 3) uint8, mask and map are (n, H, W) float32; the map is that of the state's running
    statistics, as in evaluation.
    """

    def preview(
        states: TrainState, batch: dict, place: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        state = jax.tree.map(lambda x: x[place], states)
        batch = jax.tree.map(lambda x: x[place[0]], batch)
        # `state` is what the step gave; its draws were made with the key of the state before.
        key = state.replace(step=state.step - 1).step_key()
        _, sample = draw_samples(key, batch, state.hyper)
        image, mask = sample.image[:_MOST_IMAGES], sample.mask[:_MOST_IMAGES]
        prediction: Any = model.apply(state.student(), image)
        height, width = image.shape[1:3]
        full = upsample_map(prediction.map, (height, width))
        return jnp.round(image).astype(jnp.uint8), mask, full

    return preview
