"""The four golden training steps in float64, where rounding is nothing.

`python tests/training/float64_steps.py GOLDEN OUT` writes what `golden_steps.take_steps` gives as
JSON. GOLDEN is the folder of golden vectors. It needs 20 GB of free memory; `--memory` compiles
the programs only and prints what they would take.
"""

import argparse
import json
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
# Before the models are imported: their defaults and casts name the dtype.
jnp.float32 = jnp.float64
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from golden_steps import batch, first_state, programs, save_memory, take_steps, tensors  # noqa: E402
from golden_vectors import sam_variables, stlm_variables, weights_of  # noqa: E402

from stlm_jax.config import default  # noqa: E402
from stlm_jax.models import prompt_encoder, resize  # noqa: E402
from stlm_jax.models.build import build_sam, build_stlm  # noqa: E402
from stlm_jax.training.optimizer import make_optimizer  # noqa: E402

STEPS = 4

# Constants that NumPy computes.
prompt_encoder.np = resize.np = types.SimpleNamespace(**{**vars(np), "float32": np.float64})


def wide(tree):
    """The tree with its floating leaves in float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def main(folder: pathlib.Path, out: pathlib.Path, only_memory: bool) -> None:
    save_memory()
    golden = weights_of(folder)
    config = default()
    config.teacher.name, config.dtype = "mobile_sam", "float64"
    model, teacher = build_stlm(config), build_sam("mobile_sam", jnp.float64)
    teacher_variables = wide(sam_variables(tensors(golden, "mobile_sam", 3), teacher))
    pair = (tensors(golden, name, 0) for name in ("stlm_twostream", "stlm_segmentation"))
    initial = wide(stlm_variables(*pair, model))
    if only_memory:
        clean, pseudo, mask = batch(golden, 0)
        pseudo = pseudo.astype(np.float64)
        optimizer = make_optimizer(config.optimizer)
        targets_fn, gradient_fn, _ = programs(model, teacher, optimizer)
        state = first_state(config, model, optimizer, initial)
        targets = jax.eval_shape(targets_fn, teacher_variables, pseudo, clean)
        for compiled in (
            targets_fn.lower(teacher_variables, pseudo, clean).compile(),
            gradient_fn.lower(state, targets, pseudo, mask).compile(),
        ):
            print(f"{compiled.memory_analysis().temp_size_in_bytes / 2**30:.1f} GiB", flush=True)
        return
    taken = take_steps(golden, config, model, teacher, teacher_variables, initial, STEPS)
    assert taken["dtypes"] == ["float64"]
    out.write_text(json.dumps(taken))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("golden", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--memory", action="store_true", help="compile only, print the memory")
    arguments = parser.parse_args()
    main(arguments.golden, arguments.out, arguments.memory)
