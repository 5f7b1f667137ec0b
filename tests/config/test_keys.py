"""The table of keys against the parts of the program that its names stand for."""

import re

import pytest

from stlm_jax import config as configuration
from stlm_jax.config import BY_CATEGORY, KEYS, check, default, flatten, is_other_training
from stlm_jax.data import dataset
from stlm_jax.data.geometry import GEOMETRIES
from stlm_jax.data.masks import RULES
from stlm_jax.data.sources.registry import SOURCES
from stlm_jax.models.build import ENCODERS, SAM_VARIANTS
from stlm_jax.runtime.errors import UserError
from stlm_jax.training.rotation import POLICIES


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("data.source", SOURCES),
        ("data.geometry", GEOMETRIES),
        ("data.mask", RULES),
        ("data.on_error", ("raise", dataset.SKIP)),
        ("data.rotation.default", POLICIES),
        ("teacher.name", SAM_VARIANTS),
        ("student.encoder", ENCODERS),
    ],
)
def test_the_table_names_what_there_is(key, names):
    """The configuration lies below these rooms and cannot ask them."""
    listed = KEYS[key].rule.text.removeprefix("must be one of ").split(", ")
    assert sorted(listed) == sorted(names)


def test_every_default_is_what_its_own_rule_accepts():
    check(default())
    assert flatten(default()) == {name: key.default for name, key in KEYS.items()}


def test_every_key_says_what_it_is():
    for name, key in {**KEYS, **BY_CATEGORY}.items():
        assert len(key.reason) > 4 and "\n" not in key.reason, name


@pytest.mark.parametrize(
    ("set_key", "said"),
    [
        (lambda c: c.train.update(stepz=3), r"config\.train\.stepz: .*did you mean .*train\.steps"),
        (lambda c: c.update(colour="red"), r"config\.colour: there is no such key"),
        (lambda c: c.train.steps_of.update(brick=0), r"steps_of\.brick=0: must be 1 or more"),
        (lambda c: c.data.rotation.update(brick="often"), r"rotation\.brick=often: must be one of"),
        (lambda c: c.optimizer.update(b1=1.0), r"b1=1\.0: must be 0 or more, below 1"),
        (lambda c: c.pseudo.update(beta_min=0.9), r"beta_min=0\.9: must not be above .*beta_max"),
        (lambda c: c.pseudo.update(perlin_max_exponent=7), r"max_exponent=7: must be in 0\.\.6"),
        (lambda c: c.pseudo.update(perlin_min_exponent=6), r"min_exponent=6: must not be above"),
        (lambda c: c.train.update(steps=0, epochs=0), r"give train\.steps or train\.epochs"),
        (lambda c: c.train.update(accumulate=4), r"accumulate=4: must divide .*batch_size.* is 2"),
        (lambda c: c.data.update(csv="a.csv"), r"csv=a\.csv: is read with .*source=folder only"),
        (lambda c: c.evaluate.update(metrics=()), r"metrics=.*must be names separated by commas"),
    ],
)
def test_a_configuration_file_is_checked_like_the_command_line(set_key, said):
    config = default()
    set_key(config)
    with pytest.raises(UserError) as error:
        check(config)
    assert re.search(said, str(error.value)) and "\n" not in str(error.value)


def test_which_keys_make_another_training():
    same = ("data.root", "data.cache_gib", "evaluate.metrics", "log.every_steps", "profile.steps")
    assert not any(is_other_training(name, "cosine") for name in same)
    other = ("seed", "data.geometry", "calibration.held_out", "loss.l1_weight", "no.such.key")
    assert all(is_other_training(name, "none") for name in other)
    lengths = ("train.steps", "train.epochs", "train.steps_of.screw")
    for name in lengths:
        assert is_other_training(name, "cosine") and not is_other_training(name, "none")
    either_or = (("teacher.cache_gib", 0.0, 1.0, 2.0), ("teacher.store", "", "a", "b"))
    for name, empty, some, more in either_or:
        assert is_other_training(name, "none", empty, some)
        assert is_other_training(name, "none", some, empty)
        assert not is_other_training(name, "none", some, more)


def test_a_file_of_a_configuration_is_executed_once(tmp_path):
    from stlm_jax.settings import parse

    file = tmp_path / "counted.py"
    file.write_text(
        "from pathlib import Path\n"
        "from stlm_jax.config import default\n"
        "def get_config():\n"
        "    place = Path(__file__).with_name('calls')\n"
        "    place.write_text(place.read_text() + 'x' if place.exists() else 'x')\n"
        "    return default()\n"
    )
    settings = parse(["main", "--config.seed=7", "--config.train.steps=3", f"--config={file}"])
    assert (settings.config.seed, settings.config.train.steps) == (7, 3)
    assert (tmp_path / "calls").read_text() == "x"
    assert configuration.default().seed == 0
