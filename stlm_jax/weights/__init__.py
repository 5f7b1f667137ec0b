"""Weights on disk: our file, checkpoints, torch files, and what a model says of itself."""
