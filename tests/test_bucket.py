"""A run whose folder, images and textures are in a bucket, through the command line."""

import json
import re

import pytest
from bucket_server import BUCKET, served_bucket
from PIL import Image

from stlm_jax.main import main
from stlm_jax.runtime.files import write_atomically
from stlm_jax.runtime.paths import path_of
from stlm_jax.workdir import newest_step, trained_categories

RUN = f"{BUCKET}/run"


@pytest.fixture(scope="module")
def place(finished_run, tmp_path_factory):
    """The local run, and its data set in the bucket, too."""
    with served_bucket(tmp_path_factory.mktemp("emulator") / "log"):
        for file in (finished_run / "data/disc").rglob("*.png"):
            name = file.relative_to(finished_run).as_posix()
            write_atomically(f"{BUCKET}/{name}", file.read_bytes())
        yield finished_run


def command(place, *arguments):
    options = [f"--workdir={RUN}", f"--config.data.root={BUCKET}/data"]
    options += ["--config.data.categories=disc", "--config.evaluate.latency_runs=1"]
    return ["main", f"--config={place / 'tiny.py'}", *options, *arguments]


def lines(path):
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: line[name] for name in ("step", "loss", "gradient_norm")} for line in kept]


@pytest.mark.slow
def test_a_run_in_a_bucket_is_trained_resumed_and_evaluated_as_a_local_one(place, capsys):
    run = path_of(RUN)
    assert main(command(place, "--config.train.steps=4")) == 0
    assert trained_categories(run) == ["disc"] and newest_step(run / "disc") == 4
    assert main(command(place)) == 0
    said = capsys.readouterr().err
    assert "disc: going on from step 4" in said and "warning: gs://" not in said
    # As the local run, which was never stopped and read local files.
    assert lines(run / "disc/metrics.jsonl") == lines(place / "run/disc/metrics.jsonl")
    results = run / "results"
    ours, theirs = (
        json.loads((folder / "results/metrics.json").read_text())["disc"]
        for folder in (run, place / "run")
    )
    assert ours == theirs
    events = sorted(path.name for path in (run / "disc").glob("events.out.tfevents.*"))
    assert [name.endswith(".evaluation") for name in events].count(True) == 1 and len(events) == 3
    assert (results / "report.html").read_text().rstrip().endswith("</html>")
    assert len(list((results / "panels").iterdir())) == 2
    assert not (run / "lock").exists()

    assert main(command(place)) == 0
    said = capsys.readouterr().err
    assert "disc: finished before, 6 steps" in said and "check" not in said
    (results / "metrics.json").unlink()
    assert main(["main", f"--workdir={RUN}", "--mode=evaluate"]) == 0
    assert json.loads((results / "metrics.json").read_text())["disc"] == theirs


@pytest.mark.slow
def test_prediction_in_a_bucket(place, capsys):
    source = f"--config.predict.input={BUCKET}/data/disc/test/spot"
    arguments = ["main", f"--workdir={RUN}", "--mode=predict", source]
    assert main(arguments) == 0
    folder = path_of(RUN) / "results/predict/disc"
    rows = json.loads((folder / "scores.json").read_text())
    assert [row["image"] for row in rows] == [
        f"{BUCKET}/data/disc/test/spot/00{i}.png" for i in range(3)
    ]
    for row in rows:
        with Image.open(path_of(row["map"]).open("rb")) as picture:
            assert picture.size == (80, 70)
    capsys.readouterr()
    assert main(arguments) == 2
    assert re.search(r"error: gs://.* is there, of an earlier prediction", capsys.readouterr().err)


def test_a_bucket_that_is_not_there(place, capsys):
    for mode in ("train", "evaluate"):
        assert main(command(place, f"--mode={mode}", "--config.data.root=gs://other/data")) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert re.fullmatch(r"error: gs://other: there is no such bucket .*check its name", line)


@pytest.mark.slow
def test_another_training_is_told(place, capsys):
    write_atomically(f"{RUN}/lock", "process 7 on elsewhere\n")
    assert main(command(place)) == 0
    said = capsys.readouterr().err
    assert re.search(r"warning: gs://bucket/run: process 7 on elsewhere works in it.*second", said)
    assert not (path_of(RUN) / "lock").exists()
