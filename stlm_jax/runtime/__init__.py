"""Errors, files, progress, signals and JAX settings: what every room uses and none is about."""
