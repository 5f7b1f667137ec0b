"""What `python -m stlm_jax.commands.pretrain_demo_teacher` is made of; nothing else imports it."""
