"""What the golden training steps are made of, shared by the tests and by `float64_step.py`."""

import numpy as np
from flax import linen as nn
from flax import traverse_util

from stlm_jax.models import tiny_vit
from stlm_jax.weights.names import torch_name

# XLA's default order on CPU favours concurrency and needs twice the memory.
MEMORY_FIRST = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"


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
