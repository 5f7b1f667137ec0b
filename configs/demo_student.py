"""Where the demo's students come from: `python -m stlm_jax.commands.pretrain_demo_student`.

The demo's own setting on good images of everything but the demo's categories, for longer.
"""

import runpy
from pathlib import Path

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    c = runpy.run_path(str(Path(__file__).with_name("demo.py")))["get_config"]()
    c.data.demo = False
    c.data.root = "runs/demo_student_images"
    c.data.categories = ("mixed",)
    c.student.checkpoint = "demo"  # of a SAM: FA alone starts at random
    c.student.init = "mobile_sam"
    c.student.map_init_scale = 0.1  # an undecided map to begin with
    c.train.steps = 6000  # three quarters of an hour on two cores
    c.pseudo.visible_difference = 0.0
    c.optimizer.learning_rate = 1e-3
    c.optimizer.residual_learning_rate = 0.2
    c.optimizer.head_learning_rate = 0.1
    c.loss.cosine_weight = 0.2
    c.calibration.held_out = 0.0  # no threshold is wanted
    c.checkpoint.every_steps = 500
    return c
