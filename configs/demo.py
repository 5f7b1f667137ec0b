"""The demo: a small student on the generated demo set, in minutes on two cores.

Where it leaves the published setting, it is because 235 steps replace some ten thousand.
"""

from stlm_jax import config


def get_config():
    c = config.default()
    c.image_size = 256  # of the demo's images
    c.data.demo = True
    c.data.root = "runs/demo_data"
    c.data.categories = ("brick", "gravel", "flange")
    c.data.texture_count = 96
    c.data.rotation.gravel = "right_angles"  # as the published code turns textures like it

    c.teacher.name = "demo"  # ships with the package; it is not SAM
    c.teacher.checkpoint = "demo"
    c.student.encoder = "tiny_vit_demo"
    c.student.segmentation_channels = 64
    c.student.checkpoint = "demo_student"  # there is no time to learn what a pseudo-anomaly is

    c.train.batch_size = 4
    c.train.steps = 235
    c.train.steps_of.brick = 100  # by then it is learned
    c.optimizer.learning_rate = 4e-3
    c.optimizer.residual_learning_rate = 0.1
    c.optimizer.head_learning_rate = 0.05
    c.optimizer.decay = "cosine"  # so that the streams stand still while FA learns from them
    c.loss.cosine_weight = 0.1  # at 0.2 and 0.5, gravel's maps are worse after so few steps
    c.pseudo.clean_probability = 0.2  # most of the few samples should teach something
    c.pseudo.perlin_min_exponent = 1
    c.pseudo.perlin_max_exponent = 3  # smaller blobs vanish from the 16 × 16 mask
    c.pseudo.visible_difference = 30.0  # what cannot be seen teaches false alarms
    c.calibration.held_out = 0.2  # 10 of 50 images: there are no others to tell a threshold from
    c.checkpoint.every_steps = 120
    c.log.every_steps = 10
    c.log.images_every_steps = 0  # the preview's own compilation takes longer than it is worth
    c.evaluate.batch_size = 10
    c.evaluate.latency_runs = 3  # a second each on one core
    return c
