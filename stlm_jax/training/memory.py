"""Whether a training fits into memory, told before anything is compiled."""

from typing import Any

import jax
import ml_collections
import numpy as np

from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.host_memory import total_memory
from stlm_jax.runtime.program_memory import bytes_of, peak_bytes
from stlm_jax.runtime.progress import note
from stlm_jax.training.state import TrainState
from stlm_jax.training.targets import Targets

_GB = 1e9
_PROCESS = 0.6e9  # of Python, the libraries and the compiler
_CERTAIN = 0.5  # the share of the estimate that no order of computing saves


def check(
    config: ml_collections.ConfigDict,
    step: Any,
    state: TrainState,
    targets: Targets,
    shape: tuple[int, int] = (1, 1),
) -> None:
    """Notes what memory the step will take; refuses what can't fit, and warns of what may not.

    Args:
        config: of the run.
        step: the jitted step.
        state: of one training, or its shapes.
        targets: of the run.
        shape: groups, and members of a group, that the step is of.
    """
    side = (config.image_size, config.image_size, 3)
    batch = {
        "image": jax.ShapeDtypeStruct((config.train.batch_size, *side), np.uint8),
        "textures": jax.ShapeDtypeStruct((config.data.texture_count, *side), np.uint8),
        **targets.abstract_parts(config.train.batch_size),
    }
    teacher = targets.variables
    states, batch = _leading(shape, state), _leading(shape[:1], batch)
    active = jax.ShapeDtypeStruct(shape, np.bool_)
    computed = peak_bytes(step.trace(states, active, teacher, batch).jaxpr.jaxpr)
    held = bytes_of((states, teacher, batch)) + _PROCESS
    need, total = held + computed, total_memory()
    there = "" if total is None else f" of {total / _GB:.1f} GB"
    together = f", {shape[0] * shape[1]} trainings at a time" if max(shape) > 1 else ""
    note(
        f"memory: about {need / _GB:.1f} GB{there} at {config.image_size} px in batches of "
        f"{config.train.batch_size}{together}; compiling, which takes a while"
    )
    if total is None or need <= total:
        return
    advice = (
        f"lower config.image_size (now {config.image_size}), config.train.batch_size (now "
        f"{config.train.batch_size}) or config.data.texture_count (now "
        f"{config.data.texture_count}), or take a smaller teacher than {config.teacher.name}"
    )
    if held + _CERTAIN * computed > total:
        raise UserError(
            f"training takes about {need / _GB:.1f} GB, and there are {total / _GB:.1f}: {advice}"
        )
    note(f"warning: memory may not suffice: {advice}")


def _leading(axes: tuple[int, ...], tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), tree)
