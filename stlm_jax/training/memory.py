"""Whether a training fits into memory, told before anything is compiled."""

from typing import Any

import jax
import ml_collections
import numpy as np

from stlm_jax.models.stlm import Stlm
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.host_memory import total_memory
from stlm_jax.runtime.program_memory import bytes_of, peak_bytes
from stlm_jax.runtime.progress import note
from stlm_jax.training.state import abstract_train_state
from stlm_jax.training.targets import Targets

_GB = 1e9
_PROCESS = 0.6e9  # of Python, the libraries and the compiler
_CERTAIN = 0.5  # the share of the estimate that no order of computing saves


def check(config: ml_collections.ConfigDict, step: Any, model: Stlm, targets: Targets) -> None:
    """Notes what memory the step will take; refuses what can't fit, and warns of what may not.

    Args:
        config: of the run.
        step: the jitted step.
        model: the student.
        targets: of the run.
    """
    side = (config.image_size, config.image_size, 3)
    state = abstract_train_state(config, model)
    batch = {
        "image": jax.ShapeDtypeStruct((config.train.batch_size, *side), np.uint8),
        "textures": jax.ShapeDtypeStruct((config.data.texture_count, *side), np.uint8),
        **targets.abstract_parts,
    }
    teacher = targets.variables
    computed = peak_bytes(step.trace(state, teacher, batch).jaxpr.jaxpr)
    held = bytes_of((state, teacher, batch)) + _PROCESS
    need, total = held + computed, total_memory()
    there = "" if total is None else f" of {total / _GB:.1f} GB"
    note(
        f"memory: about {need / _GB:.1f} GB{there} at {config.image_size} px in batches of "
        f"{config.train.batch_size}; compiling, which takes a while"
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
