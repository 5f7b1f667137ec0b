"""Every kind of bad input ends in the status and the line that it should, and loses nothing."""

import pytest
from census import try_kind
from kinds import KINDS
from miniature import stand_in_step


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch):
    """Some kinds train; with what, is not what they are about."""
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name[:60])
def test_a_kind_of_input(kind, finished_run, tmp_path):
    assert try_kind(kind, finished_run, tmp_path / "place") == ""


def test_kinds_are_many_and_unlike():
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 175
