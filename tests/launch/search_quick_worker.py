"""`launch.tuning.worker` with a step that compiles at once; at a rate of 9 it soon diverges."""

import jax.numpy as jnp
import pytest
from miniature import stand_in_step

from launch.tuning.worker import main
from stlm_jax.runtime.exit_status import end


def diverging(model, teacher, optimizer, state, variables, batch, **_):
    new, metrics = stand_in_step(model, teacher, optimizer, state, variables, batch)
    rate = state.opt_state.inner_states["adam"].inner_state.hyperparams["learning_rate"]
    metrics["loss"] = jnp.where((rate == 9) & (new.step == 3), jnp.nan, metrics["loss"])
    return new, metrics


if __name__ == "__main__":
    from test_ensemble import stand_in

    patch = pytest.MonkeyPatch()
    stand_in(patch)
    patch.setattr("stlm_jax.training.trainer.train_step", diverging)
    end(main())
