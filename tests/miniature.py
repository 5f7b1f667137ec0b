"""A miniature data set and configuration that train in seconds, for the tests of the program."""

import pathlib

import numpy as np
from PIL import Image

CATEGORIES = ("disc", "ring")

_METRICS = ("loss", "cosine", "focal", "l1", "gradient_norm", "teacher_passes")

CONFIG = """
from stlm_jax.config import default


def get_config():
    c = default()
    c.image_size = 64
    c.data.root = {root!r}
    c.data.categories = {categories!r}
    c.data.texture_count = 4
    c.data.rotation.ring = "small"
    c.teacher.name = "vit_tiny"
    c.teacher.checkpoint = "random"
    c.student.encoder = "tiny_vit_test"
    c.remat = "none"  # compiles sooner
    c.train.steps = 6
    c.checkpoint.every_steps = 4
    c.log.every_steps = 2
    c.evaluate.panels = 2
    return c
"""


def write_set(folder: pathlib.Path, categories=CATEGORIES) -> pathlib.Path:
    """The data set and `tiny.py`, a configuration of it, in a folder; the configuration's path."""
    write_dataset(folder / "data")
    return write_config(folder / "tiny.py", folder / "data", categories)


def write_dataset(root: pathlib.Path) -> None:
    """Two categories of noise in MVTec AD's layout; the defects are bright squares."""
    rng = np.random.default_rng(0)
    counts = {"train/good": 5, "test/good": 2, "test/spot": 3}
    for category in CATEGORIES:
        for folder, count in counts.items():
            for index in range(count):
                image = rng.integers(90, 110, (70, 80, 3), dtype=np.uint8)
                mask = np.zeros((70, 80), np.uint8)
                if "spot" in folder:
                    mask[20:44, 24:50] = 255
                    image[mask > 0] = 250
                    _save(root / category / f"ground_truth/spot/{index:03}_mask.png", mask)
                _save(root / category / folder / f"{index:03}.png", image)


def write_config(path: pathlib.Path, root: pathlib.Path, categories=CATEGORIES) -> pathlib.Path:
    path.write_text(CONFIG.format(root=str(root), categories=tuple(categories)))
    return path


def stand_in_step(model, teacher, optimizer, state, teacher_variables, batch, **_):
    """Where not the step is tested, in the place of `training.step.train_step`: compiles at once.

    It moves every number of the student by one drawn from the step's key and its images.
    """
    import jax

    draw = jax.random.uniform(state.step_key()) * batch["image"].mean()

    def moved(tree):
        return jax.tree.map(lambda x: x * (1 + 1e-5 * draw).astype(x.dtype), tree)

    changed = dict(params=moved(state.params), batch_stats=moved(state.batch_stats))
    metrics = {name: draw for name in _METRICS}
    return state.replace(step=state.step + 1, **changed), metrics


def _save(path: pathlib.Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
