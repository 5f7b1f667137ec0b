"""The golden training steps, which the tests take in float32 and `float64_steps.py` in float64."""

import functools

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from stlm_jax.models import tiny_vit
from stlm_jax.runtime.compilation import jit
from stlm_jax.training.optimizer import make_optimizer
from stlm_jax.training.state import create_train_state
from stlm_jax.training.step import apply, gradients
from stlm_jax.training.teacher import teacher_features
from stlm_jax.weights.names import torch_name


def save_memory():
    """Has the encoders' blocks computed again for their gradients; changes the library."""
    for part in ("PatchEmbed", "MBConv", "PatchMerging", "TinyViTBlock"):
        setattr(tiny_vit, part, nn.remat(getattr(tiny_vit, part), static_argnums=(2,)))


def batch(golden, step):
    """The clean and the pseudo-anomalous images of a step, and the mask (N, H, W)."""
    clean, texture, mask = (
        golden.image(1024, 1024, base + step, batch=2) for base in (100, 200, 300)
    )
    mask = mask[..., :1] > 160
    return clean, np.where(mask, texture, clean), mask[..., 0]


def tensors(golden, layout, seed):
    """The state dict of a published layout."""
    return golden.state_dict(golden.load_manifest(layout), seed)


def norms(tree):
    """The norm of every tensor of the student by its published name."""
    found = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        part = "segmentation" if path[0] == "segmentation" else "twostream"
        name = f"{part}/{torch_name(path).removeprefix('segmentation.')}"
        found[name] = float(np.linalg.norm(np.asarray(leaf, np.float64)))
    return found


def programs(model, teacher, optimizer):
    """Targets, gradients, update: in three programs, the memory of one is free in the next."""
    return (
        jit(functools.partial(teacher_features, teacher)),
        jit(functools.partial(gradients, model)),
        jit(functools.partial(apply, optimizer)),
    )


def first_state(config, model, optimizer, initial):
    """The state before the first step, from the student's variables."""
    state = create_train_state(config, model, jax.random.key(0))
    return state.replace(opt_state=optimizer.init(initial["params"]), **initial)


def take_steps(golden, config, model, teacher, teacher_variables, initial, count):
    """Losses before each update, norms of the first gradients and of what all updates changed."""
    optimizer = make_optimizer(config.optimizer)
    targets_fn, gradient_fn, apply_fn = programs(model, teacher, optimizer)
    state = first_state(config, model, optimizer, initial)
    losses, first = [], None
    for step in range(count):
        clean, pseudo, mask = batch(golden, step)
        pseudo = pseudo.astype(jax.tree.leaves(initial)[0].dtype)
        targets = targets_fn(teacher_variables, pseudo, clean)
        grads, batch_stats, metrics = gradient_fn(state, targets, pseudo, mask)
        first = first or jax.device_get(grads)
        state = apply_fn(state, grads, batch_stats)
        losses.append([float(metrics[name]) for name in ("cosine", "focal", "l1", "loss")])
    changes = jax.tree.map(
        lambda after, before: np.asarray(after, np.float64) - before,
        state.params,
        initial["params"],
    )
    return {
        "losses": losses,
        "gradients": norms(first),
        "changes": norms(changes),
        "dtypes": sorted(
            {str(leaf.dtype) for leaf in jax.tree.leaves((targets, grads, state.params))}
        ),
    }
