"""Models that have no second map, of the cosine distances, through the command line."""

import json

import pytest

from conversion import to_torch
from stlm_jax.main import main


@pytest.fixture
def changed(finished_run):
    """Has the run's configuration say another model, whose weights have the same shapes."""
    path = finished_run / "run/config.json"
    before = path.read_text()

    def change(**student):
        content = json.loads(before)
        content["student"] |= student
        path.write_text(json.dumps(content))
        return finished_run / "run"

    yield change
    path.write_text(before)


def test_a_stream_alone_has_one_map(changed):
    run = changed(streams="plain")
    assert main(["main", f"--workdir={run}", "--mode=evaluate"]) == 0
    results = json.loads((run / "results/metrics.json").read_text())
    assert set(results["mean"]) == {"image_auroc", "pixel_auroc", "pixel_ap", "aupro"}
    header = (run / "results/table.md").read_text().splitlines()[0]
    assert "AUPRO" in header and "FA" not in header
    page = (run / "results/report.html").read_text()
    assert "streams=plain" in page and "without FA" not in page
    details = json.loads((run / "results/details.json").read_text())
    assert set(details["categories"]["disc"]["metrics"]) == set(results["mean"])


@pytest.mark.parametrize("student", [{"levels": "1"}, {"fa": False}, {"decoder": "separate"}])
def test_the_published_layout_has_no_place_for_another_model(changed, tmp_path, student, capsys):
    run = changed(**student)
    assert to_torch.main([str(run / "disc"), str(tmp_path / "out.pt")]) == 2
    error = capsys.readouterr().err
    ((key, value),) = student.items()
    assert error.count("\n") == 1
    if key == "decoder":
        assert "modelS" in error  # the run was trained without, which is told first
    else:
        assert f"config.student.{key}={value}, which the published layout has no place" in error
    assert not (tmp_path / "out.pt").exists()
