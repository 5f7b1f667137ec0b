"""Every kind of bad input ends in the status and the line that it should, and loses nothing."""

import pytest
from census import try_kind
from kinds import KINDS


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name[:60])
def test_a_kind_of_input(kind, finished_run, tmp_path):
    assert try_kind(kind, finished_run, tmp_path / "place") == ""


def test_kinds_are_many_and_unlike():
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 175
