"""The published code's results, and the module that makes the weights they were computed from."""

import importlib.util


def weights_of(folder):
    """The module `weights` in the folder of golden vectors; it knows the folder as `folder`."""
    spec = importlib.util.spec_from_file_location("golden_weights", folder / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.folder = folder
    return module
