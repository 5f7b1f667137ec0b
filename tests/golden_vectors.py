"""The published code's results, and the module that makes the weights they were computed from."""

import importlib.util

from stlm_jax.models.initialization import variable_shapes
from stlm_jax.weights import layouts
from stlm_jax.weights.published import convert


def weights_of(folder):
    """The module `weights` in the folder of golden vectors; it knows the folder as `folder`."""
    spec = importlib.util.spec_from_file_location("golden_weights", folder / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = folder
    return module


def sam_variables(tensors, model):
    """Variables of a `Sam` from a SAM or MobileSAM state dict."""
    return convert(tensors, variable_shapes(model))


def stlm_variables(two_stream, segmentation, model):
    """Variables of an `Stlm` from the two published state dicts."""
    return convert(layouts.join(two_stream, segmentation), variable_shapes(model))
