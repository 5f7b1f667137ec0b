"""What `config.ensemble` names: runs, their settings, and what they cannot be."""

import re

import pytest
from miniature import write_set
from training.test_ensemble import config_file, run

from stlm_jax.config import configurations
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    write_set(folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"a": "train.batch_size=4"}, r"settings\.a=.*cannot differ in train\.batch_size"),
        ({"a": "optimizer.speed=4"}, r"cannot differ in optimizer\.speed"),
        ({"a": "optimizer.learning_rate"}, r"is not KEY=VALUE"),
        ({"a": "optimizer.learning_rate=fast"}, r"learning_rate=fast: must be a number"),
        ({"a": "optimizer.b1=1"}, r"run a: .*b1=1\.0: must be 0 or more, below 1"),
        ({"a/b": ""}, r"is to be a folder's name"),
    ],
)
def test_what_settings_cannot_be(place, settings, said, capsys):
    assert run(place, "refused", settings=settings) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1
    assert not (place / "refused").exists()


def test_seeds_are_whole_numbers_and_none_is_twice(place, capsys):
    for seeds, said in (("0,x", "whole numbers"), ("1,1", "names one twice")):
        assert run(place, "refused", f"--config.ensemble.seeds={seeds}") == 2
        assert said in capsys.readouterr().err


def test_settings_can_be_given_on_the_command_line(place):
    given = ["--config.ensemble.settings.base=", "--config.ensemble.seeds=4",
             "--config.ensemble.settings.low=optimizer.learning_rate=1e-4 loss.focal_gamma=3",
             "--config.ensemble.settings.opaque=pseudo.beta_max=0.2"]  # fmt: skip
    file = config_file(place, {"opaque": "pseudo.beta_max=0.1"}, "given.py")
    runs = configurations(parse(["main", f"--config={file}", *given]).config)
    assert runs.keys() == {"opaque_seed4", "base_seed4", "low_seed4"}
    assert runs["low_seed4"].loss.focal_gamma == 3
    assert runs["opaque_seed4"].pseudo.beta_max == 0.2
    for name in ("a.b", ""):
        with pytest.raises(UserError, match=f"settings.{name}: .* is to be a folder's name"):
            parse(["main", f"--config={file}", f"--config.ensemble.settings.{name}=x"])
