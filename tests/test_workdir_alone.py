"""A finished run needs only its folder: to be evaluated, to predict, to be exported, to go on."""

import json
import re
import shutil

import pytest
from miniature import CATEGORIES

from stlm_jax.config import flatten
from stlm_jax.main import main
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """A copy of the finished run, its configuration file not beside it."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(finished_run / "run", folder)
    edit(folder, lambda config: config["data"].update(root=str(finished_run / "data")))
    return folder


def edit(run, change):
    path = run / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", "{", ""])
def test_a_stored_configuration_that_is_none(tmp_path, capsys, text):
    (tmp_path / "config.json").write_text(text)
    line = refusal(capsys, f"--workdir={tmp_path}", "--mode=evaluate")
    assert "config.json: not a configuration" in line


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert main(["main", *arguments]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_the_settings_are_those_that_the_file_gave(finished_run):
    given = [f"--workdir={finished_run / 'run'}"]
    ours = parse(["main", *given])
    theirs = parse(["main", f"--config={finished_run / 'tiny.py'}", *given])
    stored, written = flatten(ours.config), flatten(theirs.config)
    assert {**stored, "data.root": ""} == {**written, "data.root": ""}
    assert {key: type(value) for key, value in stored.items()} == {
        key: type(value) for key, value in written.items()
    }
    assert (ours.workdir, ours.mode) == (theirs.workdir, theirs.mode)


def test_evaluation_with_the_workdir_alone(run):
    before = (run / "results/metrics.json").read_text()
    shutil.rmtree(run / "results")
    assert main(["main", f"--workdir={run}", "--mode=evaluate"]) == 0
    assert (run / "results/metrics.json").read_text() == before
    free = ["--config.evaluate.metrics=image_auroc", "--config.data.categories=ring"]
    free += ["--config.evaluate.panels=0", "--mode=evaluate"]
    assert main(["main", f"--workdir={run}", *free]) == 0
    assert list(json.loads((run / "results/metrics.json").read_text())) == ["ring", "mean"]
    assert json.loads((run / "config.json").read_text())["data"]["categories"] == [*CATEGORIES]


def test_prediction_with_the_workdir_alone_and_without_the_data(run, finished_run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    edit(moved, lambda config: config["data"].update(root="/nowhere"))
    source = finished_run / "data/disc/test/spot"
    options = [f"--config.predict.input={source}", "--config.data.categories=disc"]
    assert main(["main", f"--workdir={moved}", "--mode=predict", *options]) == 0
    rows = json.loads((moved / "results/predict/disc/scores.json").read_text())
    assert len(rows) == 3 and "is_anomalous" in rows[0]


def test_training_goes_on_with_the_workdir_alone(run, capsys):
    assert main(["main", f"--workdir={run}", "--config.evaluate.panels=0"]) == 0
    assert "disc: finished before, 6 steps" in capsys.readouterr().err


def test_all_that_must_not_differ_is_refused_in_one_line(run, finished_run, capsys):
    changed = ["--config.seed=3", "--config.loss.l1_weight=2.5", "--config.evaluate.batch_size=2"]
    for first in ([], [f"--config={finished_run / 'tiny.py'}"]):
        for mode in ("train", "evaluate", "predict"):
            options = [f"--mode={mode}", "--config.data.categories=disc"]
            options += [f"--config.predict.input={finished_run / 'data/disc/test/spot'}"]
            line = refusal(capsys, *first, f"--workdir={run}", *options, *changed)
            assert "config.loss.l1_weight=1.0, now it is 2.5; config.seed=0, now it is 3" in line
            assert "--config.loss.l1_weight=1.0 --config.seed=0 to go on" in line
            assert "batch_size" not in line


def test_a_folder_of_no_run(run, tmp_path, capsys):
    line = refusal(capsys, f"--workdir={tmp_path}", "--mode=predict")
    assert re.search(r"no run was trained there, config\.json is missing: give its conf", line)
    line = refusal(capsys, f"--workdir={run / 'disc'}", "--mode=predict")
    assert line.endswith(f"or --workdir={run}")
    with pytest.raises(UserError, match=r"--config is missing: .*--workdir=DIR"):
        parse(["main", "--mode=predict"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["train"].update(steps="many"), r"config\.json: .*release .*steps"),
        (lambda c: c["train"].update(steps=-1), r"config\.json: --config\.train\.steps=-1: must"),
        (lambda c: c.update(train=5), r"config\.json: "),
        (lambda c: c["data"].update(categories=[]), r"config\.json: .*categories"),
        (lambda c: c.update(colour="red"), r"config\.json: config\.colour: there is no such key"),
    ],
)
def test_a_stored_configuration_is_checked(run, tmp_path, capsys, change, expected):
    (tmp_path / "run").mkdir()
    shutil.copy(run / "config.json", tmp_path / "run")
    edit(tmp_path / "run", change)
    assert re.search(expected, refusal(capsys, f"--workdir={tmp_path / 'run'}", "--mode=evaluate"))


def test_a_run_made_before_there_were_some_keys(run, tmp_path):
    shutil.copy(run / "config.json", tmp_path)
    edit(tmp_path, lambda config: [config.pop("predict"), config["data"].pop("geometry")])
    config = parse(["main", f"--workdir={tmp_path}"]).config
    assert config.data.geometry == "squash" and config.predict.tile == 0


def test_help_shows_the_settings_of_the_run(run, capsys):
    assert main(["main", f"--workdir={run}", "--help"]) == 0
    assert re.search(r"--config\.train\.steps +6\n", capsys.readouterr().out)


def test_exports_take_the_workdir(run, tmp_path, capsys):
    from conversion import to_onnx, to_stablehlo, to_torch

    line = [f"--workdir={run}", str(tmp_path / "out.pt")]
    for command in (to_torch, to_onnx, to_stablehlo):
        assert command.main(line) == 2
        assert (
            "give one category's folder inside it (trained: disc, ring)" in capsys.readouterr().err
        )
    one = tmp_path / "one"
    shutil.copytree(run, one)
    shutil.rmtree(one / "ring")
    pytest.importorskip("torch")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    assert to_torch.main([f"--workdir={one}", str(ours)]) == 0
    assert to_torch.main([str(one / "disc"), str(theirs)]) == 0
    assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(SystemExit):
        to_torch.main([f"--workdir={one}", str(one), str(ours)])
