"""The demo: a small student on the generated demo set, in minutes on two cores."""

from stlm_jax import config


def get_config():
    c = config.default()
    c.image_size = 256  # of the demo's images
    c.data.demo = True
    c.data.root = "runs/demo_data"
    c.data.categories = ("brick", "gravel", "flange")
    c.data.texture_count = 96

    c.teacher.name = "demo"  # ships with the package; it is not SAM
    c.teacher.checkpoint = "demo"
    c.student.encoder = "tiny_vit_demo"
    c.student.segmentation_channels = 64
    c.student.checkpoint = "demo"
    c.student.init = "mobile_sam"  # there is no time to train encoders from random weights

    c.train.batch_size = 8
    c.train.steps = 120
    c.pseudo.perlin_max_exponent = 4  # blobs as large against a feature cell as at 1024 px
    c.checkpoint.every_steps = 60
    c.checkpoint.keep = 1
    c.log.every_steps = 10
    c.evaluate.batch_size = 10
    return c
