"""The networks. They know only jax and flax."""
