"""What the loop does besides training: a table, a profile, no hidden transfers, one process."""

import re

import pytest
from miniature import stand_in_step, write_set

from stlm_jax.config import default
from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.training.placement import Placement
from stlm_jax.training.state import parameter_table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_set(folder, ["disc"])
    return folder


@pytest.fixture(autouse=True)
def no_evaluation(monkeypatch):
    monkeypatch.setattr("stlm_jax.main.evaluate_and_report", lambda config, workdir: None)
    monkeypatch.setattr("stlm_jax.evaluation.calibrate.calibrate_untested", lambda *_: None)


def command(place, workdir, *arguments):
    return ["main", f"--config={place / 'tiny.py'}", f"--workdir={place / workdir}", *arguments]


def test_the_table_counts_every_parameter_once():
    """16.65 M by the specification."""
    table = parameter_table(variable_shapes(build_stlm(default()))["params"])
    numbers = [int(line.split()[-1].replace(",", "")) for line in table.splitlines()]
    assert sum(numbers[:-1]) == numbers[-1] == pytest.approx(16.65e6, rel=1e-3)
    assert re.search(r"^encoderT +adam +5,7\d\d,\d\d\d$", table, re.M)
    assert re.search(r"^segmentation/res_0 +sgd_residual ", table, re.M)


def test_a_run_shows_the_table_and_writes_the_profile_asked_for(place, capsys, monkeypatch):
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    monkeypatch.setattr("stlm_jax.main.evaluate_and_report", lambda *_: None)
    options = ["--config.profile.start=2", "--config.profile.steps=2"]
    assert main(command(place, "profiled", *options)) == 0
    assert re.search(r"^parameters +\d", capsys.readouterr().err, re.M)
    assert list((place / "profiled/disc/profile").rglob("*.xplane.pb"))


def test_a_transfer_that_nobody_asked_for_is_an_error(place, monkeypatch):
    """A batch left on the host would be sent in every step, unseen."""
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    monkeypatch.setattr(Placement, "batch", lambda _, tree: tree)
    with pytest.raises(Exception, match="[Dd]isallowed host-to-device transfer"):
        main(command(place, "hidden"))
