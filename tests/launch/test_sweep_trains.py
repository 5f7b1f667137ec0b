"""A study that is really trained, by submitit's processes and the program itself."""

import json

import pytest
import submitit  # noqa: F401  # here: its logging closes what a captured test writes to
from miniature import write_set

from launch import sweep

STUDIES = """
def get_studies(base):
    return {
        "parts": {
            "whole": {},
            "plain_only": {"student.streams": "plain"},
            "without_fa": {"student.fa": False},
            "separate": {"student.decoder": "separate"},
        }
    }
"""


@pytest.mark.slow
def test_a_study_of_the_model_s_parts_is_trained_and_told(tmp_path, capsys):
    write_set(tmp_path)
    (tmp_path / "studies.py").write_text(STUDIES)
    command = [
        "sweep", f"--config={tmp_path / 'studies.py'}:parts", f"--base={tmp_path / 'tiny.py'}",
        f"--workdir={tmp_path / 'run'}", "--seeds=2",
    ]  # fmt: skip
    assert sweep.main(command) == 0
    table = (tmp_path / "run/study/table.md").read_text()
    assert table.count("done |") == 4 and "Not compared" not in table
    whole, plain = (
        json.loads((tmp_path / f"run/base/{name}_seed1/results/metrics.json").read_text())["mean"]
        for name in ("whole", "plain_only")
    )
    assert "aupro_without_fa" in whole and "aupro_without_fa" not in plain
    logged = (tmp_path / "run/base/whole_seed0/disc/metrics.jsonl").read_text().splitlines()
    assert json.loads(logged[-1])["together"] == 3.0
    files = {path: path.stat().st_mtime for path in (tmp_path / "run/base").rglob("details.json")}
    assert len(files) == 6 and sweep.main(command) == 0
    assert files == {path: path.stat().st_mtime for path in files}  # nothing was done again
