"""The modules of `torch_stlm.TorchStlm`."""
