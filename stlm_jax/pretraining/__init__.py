"""What `python -m stlm_jax.pretrain_demo_teacher` is made of; nothing else imports it."""
