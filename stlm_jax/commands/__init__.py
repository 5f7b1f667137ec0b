"""Further commands, each `python -m stlm_jax.commands.NAME`."""
