"""Prediction on several devices: what one of them predicts, in the images' order."""

from other_processes import run_on_four_devices

CODE = """
import jax
import numpy as np
from stlm_jax.config import default
from stlm_jax.data.geometry import Box
from stlm_jax.data.reader import View
from stlm_jax.inference.predictor import Predictor
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import random_variables

config = default()
config.image_size, config.student.encoder, config.evaluate.batch_size = 32, "tiny_vit_test", 2
variables = random_variables(build_stlm(config), jax.random.key(0))
images = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
views = [View(image, Box(0, 0, 32, 32)) for image in images]  # more than a call takes, not even
several, one = Predictor(config), Predictor(config, jax.devices()[:1])
found = []
for predictor in (several, one):
    predictor.take(variables)
    found.append(list(predictor(views)))
assert len(found[0]) == len(found[1]) == 11
for ours, theirs in zip(*found, strict=True):
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
assert np.ptp([maps.score for maps in found[0]]) > 0
costs = several.cost(1), one.cost(1)
assert costs[0].batch_size == 8 and costs[0].device.endswith(", 4 of them")
assert abs(costs[0].flops / costs[1].flops - 1) < 1e-3
"""


def test_devices_share_the_images():
    run_on_four_devices(CODE)
