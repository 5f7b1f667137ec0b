r"""Your own parts on a laptop: thirty good photographs, a few minutes, no download.

    python -m stlm_jax.main --config=configs/own.py --config.data.root=DIR --workdir=runs/mypart

DIR/train/good holds good photographs; DIR/test/good, DIR/test/<defect> and masks in
DIR/ground_truth/<defect>/<name>_mask.png are read where they are there, as configs/folder.py says.
The teacher and the student's first weights are those that ship with the package for the demo.
SAM's weights, 1024 px and hours on a GPU are better: configs/folder.py.
Parts that may lie in any direction: --config.data.rotation.default=right_angles.
"""

import ml_collections

from stlm_jax.config import default


def get_config() -> ml_collections.ConfigDict:
    c = default()
    c.image_size = 256  # a sixteenth of the published work
    c.data.source = "folder"
    c.data.categories = ("all",)
    c.data.texture_count = 96

    c.teacher.name = "demo"  # ships with the package; it is not SAM
    c.teacher.checkpoint = "demo"
    c.student.encoder = "tiny_vit_demo"
    c.student.segmentation_channels = 64
    c.student.checkpoint = "demo_student"  # it knows what a pseudo-anomaly is, and no product

    # The demo's setting, which configs/demo.py explains.
    c.train.batch_size = 4
    c.train.steps = 300
    c.optimizer.learning_rate = 4e-3
    c.optimizer.residual_learning_rate = 0.1
    c.optimizer.head_learning_rate = 0.05
    c.optimizer.decay = "cosine"
    c.loss.cosine_weight = 0.1
    c.pseudo.clean_probability = 0.2
    c.pseudo.perlin_min_exponent = 1
    c.pseudo.perlin_max_exponent = 3
    c.pseudo.visible_difference = 30.0
    c.calibration.held_out = 0.2  # 6 of 30 photographs: the threshold comes from them
    c.checkpoint.every_steps = 100
    c.log.every_steps = 10
    c.log.images_every_steps = 0  # the preview's own compilation takes longer than it is worth
    c.evaluate.latency_runs = 3
    return c
