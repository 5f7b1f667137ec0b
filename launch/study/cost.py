"""What a pack takes, as the plan counts it: steps, passes of the teacher, operations."""

from typing import Any, NamedTuple

import ml_collections

from launch.arithmetic import flops
from launch.measured import FROM_STORE, TRAIN
from launch.work import work_of


class Cost(NamedTuple):
    """Of what is to be trained.

    Attributes:
        steps: of all trials and categories.
        passes: images that the teacher is run for, as often as drawn on average.
        operations: of the steps.
    """

    steps: int
    passes: float
    operations: float

    def __add__(self, other: Any) -> "Cost":
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def cost(config: ml_collections.ConfigDict) -> Cost:
    """Of all that a configuration trains, on one device; traces its step and compiles nothing.

    Args:
        config: of a run or an ensemble; its images are where it says.
    """
    import jax  # here, like those that import it: a mistyped flag is answered without

    from launch.programs import passes_of, programs
    from launch.together import trained_together
    from stlm_jax.runtime.mesh import make_mesh

    steps = {name: number or 0 for name, number in work_of(config, None).steps.items()}
    together = trained_together(config, steps, jax.devices()[:1], 1)
    step = next(iter(programs(config, make_mesh(1, 1), together)))
    assert step.name in (TRAIN, FROM_STORE)
    members = max(step.trainings, 1)
    each = flops(step.trace().jaxpr.jaxpr, step.turns) / members
    groups = [group for pack in together.packs for group in pack]
    taught = config.teacher.checkpoint != "none" and not config.teacher.store
    passes = sum(
        group.lead.total
        * config.train.batch_size
        * passes_of(group.lead.run.config, group.lead.category)
        for group in groups
    )
    all_steps = sum(member.total for group in groups for member in group.members)
    return Cost(all_steps, passes if taught else 0.0, each * all_steps)
