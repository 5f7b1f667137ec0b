"""Weights between published PyTorch checkpoints and this package's variables."""
