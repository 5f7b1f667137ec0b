"""What comes before and around training on rented machines; `stlm_jax` knows nothing of it."""
