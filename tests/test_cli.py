"""The command line: what a person gets, and every error in one line."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from miniature import CATEGORIES, write_config
from PIL import Image

from stlm_jax.main import main
from stlm_jax.models.build import build_stlm
from stlm_jax.models.initialization import variable_shapes
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse
from stlm_jax.training.state import abstract_train_state
from stlm_jax.weights.checkpoint import Checkpoints
from stlm_jax.workdir import check_same_run

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def place(finished_run):
    return finished_run


def command(place, *arguments, workdir="run"):
    return ["main", f"--config={place / 'tiny.py'}", f"--workdir={place / workdir}", *arguments]


def one_line_of_error(capsys, status, expected):
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and "Traceback" not in "".join(lines)
    assert re.search(expected, lines[-1]), lines[-1]


# --- a finished run ---


def test_training_leaves_everything_in_the_workdir(place):
    run = place / "run"
    for category in CATEGORIES:
        with Checkpoints(run / category / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.steps() == [4, 6]
        lines = (run / category / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        assert [line["step"] for line in metrics] == [2, 4, 6]
        assert {"loss", "cosine", "focal", "l1"} <= metrics[0].keys()
        events = [path.name for path in (run / category).glob("events.out.tfevents.*")]
        assert sorted(name.endswith(".evaluation") for name in events) == [False, True]
    assert json.loads((run / "config.json").read_text())["train"]["steps"] == 6
    description = json.loads((run / "run.json").read_text())
    assert description["seed"] == 0 and description["versions"]["jax"] == jax.__version__
    assert "--workdir=" in description["command"] and description["devices"]
    assert {"git_revision", "started"} <= description.keys()
    results = json.loads((run / "results" / "metrics.json").read_text())
    assert list(results) == [*CATEGORIES, "mean"]
    assert {"image_auroc", "aupro", "image_auroc_without_fa", "aupro_without_fa"} <= results[
        "mean"
    ].keys()
    assert all(0 <= value <= 1 for values in results.values() for value in values.values())
    assert "| disc " in (run / "results" / "table.md").read_text()
    panels = sorted(p.name for p in (run / "results" / "panels").iterdir())
    assert len(panels) == 4 and panels[0].endswith(".png")


def test_a_finished_run_is_evaluated_again_and_not_trained(place, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("a finished category was trained")

    monkeypatch.setattr("stlm_jax.training.train.Trainer", refuse)
    before = (place / "run" / "results" / "metrics.json").read_text()
    shutil.rmtree(place / "run" / "results")
    assert main(command(place)) == 0
    assert (place / "run" / "results" / "metrics.json").read_text() == before
    printed = capsys.readouterr()
    assert "disc: finished before, 6 steps" in printed.err and "| **mean** |" in printed.out
    assert json.loads((place / "run" / "run.json").read_text())["previous"]


def test_evaluation_of_one_category_with_other_metrics(place):
    copy = place / "evaluated"
    shutil.copytree(place / "run", copy)
    options = ["--config.evaluate.metrics=pixel_ap", "--config.evaluate.batch_size=2"]
    options += ["--config.evaluate.panels=0", "--config.data.categories=ring"]
    assert main(command(place, "--mode=evaluate", *options, workdir="evaluated")) == 0
    ours = json.loads((copy / "results" / "metrics.json").read_text())
    theirs = json.loads((place / "run" / "results" / "metrics.json").read_text())
    assert list(ours) == ["ring", "mean"]
    assert list(ours["ring"]) == ["pixel_ap", "pixel_ap_without_fa"]
    # Another batch size compiles another program: equal but for rounding.
    assert ours["ring"]["pixel_ap"] == pytest.approx(theirs["ring"]["pixel_ap"], abs=1e-4)


def test_prediction_of_a_folder(place, capsys):
    source = place / "data" / "disc" / "test" / "spot"
    options = [
        "--mode=predict",
        f"--config.predict.input={source}",
        "--config.data.categories=disc",
    ]
    assert main(command(place, *options)) == 0
    directory = place / "run" / "results" / "predict" / "disc"
    rows = json.loads((directory / "scores.json").read_text())
    assert [pathlib.Path(row["image"]).name for row in rows] == ["000.png", "001.png", "002.png"]
    assert len((directory / "scores.csv").read_text().splitlines()) == 4
    for row in rows:
        assert 0 <= row["score"] <= 1
        with Image.open(row["map"]) as map_, Image.open(row["overlay"]) as overlay:
            assert map_.size == overlay.size == (80, 70)  # the image's own size
            largest = np.asarray(map_).max() / 65535
        assert largest >= row["score"] * 0.9  # the score is a mean of the largest values
    assert f"{rows[0]['score']:.4f}" in capsys.readouterr().out


def test_prediction_in_tiles_leaves_out_what_cannot_be_read(place, tmp_path, capsys):
    big = np.random.default_rng(0).integers(90, 110, (150, 400, 3), dtype=np.uint8)
    Image.fromarray(big).save(tmp_path / "big one.png")
    (tmp_path / "broken.png").write_bytes(b"")
    options = ["--mode=predict", f"--config.predict.input={tmp_path}", "--config.predict.tile=100"]
    options += ["--config.data.categories=ring", "--config.data.on_error=skip"]
    assert main(command(place, *options)) == 0
    (row,) = json.loads((place / "run/results/predict/ring/scores.json").read_text())
    assert pathlib.Path(row["image"]).name == "big one.png" and 0 <= row["score"] <= 1
    with Image.open(row["map"]) as map_, Image.open(row["overlay"]) as overlay:
        assert map_.size == overlay.size == (400, 150)
        largest = np.sort(np.asarray(map_).ravel())[-100:].mean() / 65535
    assert largest == pytest.approx(row["score"], abs=1e-4)
    printed = capsys.readouterr().err
    assert "left out: cannot read" in printed and "1 of 2 images were left out" in printed


def test_a_category_is_trained_with_its_rotation(place):
    degrees = {}
    for category in CATEGORIES:
        with Checkpoints(place / "run" / category / "checkpoints", read_only=True) as checkpoints:
            config = parse(command(place)).config
            state = abstract_train_state(config, build_stlm(config))
            training = checkpoints.restore(state.student(), state.training()).training
        degrees[category] = float(training["hyper"]["rotation"]["degrees"])
    assert degrees == {"disc": 0.0, "ring": 5.0}


# --- errors of the command line ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config.optimizer.learning_rte=1"], r"no key 'learning_rte'.*Did you mean "
         r"config\.optimizer\.learning_rate\?.*b1, b2, decay, head_learning_rate"),
        (["--config.learning_rate=1"], r"Did you mean config\.optimizer\.learning_rate\?"),
        (["--config.optimiser.b1=1"], r"no key 'optimiser' in config\. Did you mean config\.opt"),
        (["--config.train=1"], r"config\.train: is a group; .*batch_size, epochs, steps"),
        (["--config.train.steps.x=1"], r"config\.train\.steps is a value"),
        (["--config.train.steps=many"], r"config\.train\.steps=many: must be a whole number"),
        (["--config.train.steps=1.5"], r"config\.train\.steps=1\.5: must be a whole number"),
        (["--config.train.steps"], r"config\.train\.steps: the value is missing"),
        (["--config.train.batch_size=0"], r"batch_size=0: must be 1 or more"),
        (["--config.optimizer.learning_rate=fast"], r"learning_rate=fast: must be a number"),
        (["--config.optimizer.learning_rate=nan"], r"learning_rate=nan: must be a number"),
        (["--config.data.demo=perhaps"], r"data\.demo=perhaps: must be true or false"),
        (["--config.dtype=float16"], r"dtype=float16: must be one of float32, bfloat16"),
        (["--config.teacher.name=vit_x"], r"teacher\.name=vit_x: must be one of .*vit_h"),
        (["--config.student.encoder=x"], r"student\.encoder=x: must be one of .*tiny_vit_5m"),
        (["--config.data.geometry=crop"], r"geometry=crop: must be one of squash, pad"),
        (["--config.data.on_error=stop"], r"on_error=stop: must be one of raise, skip"),
        (["--config.data.cache_gib=-1"], r"cache_gib=-1\.0: must be a number of 0 or more"),
        (["--config.predict.tile=16"], r"predict\.tile=16: must be 0, or 32 or more"),
        (["--config.image_size=100"], r"image_size=100: must be a multiple of 16"),
        (["--config.evaluate.metrics=aupro,x"], r"evaluate\.metrics: unknown metric 'x'"),
        (["--config.data.categories="], r"data\.categories=.*must be names separated by commas"),
        (["--config.optimizer.decay=linear"], r"decay=linear: must be one of none, cosine"),
        (["--config.train.steps_of.disk=9"], r"no key 'disk' in config\.train\.steps_of.*FILE"),
        (["--config.pseudo.visible_difference=-1"], r"visible_difference=-1.*must be 0 or more"),
        (["--config.pseudo.beta_max=2"], r"beta_max=2.*must be in 0\.\.1"),
        (["--mode=trian"], r"--mode=trian: must be one of train, evaluate, predict"),
        (["--wokdir=x"], r"unknown option --wokdir\. Did you mean --workdir\?"),
        (["--workdir"], r"--workdir: the value is missing"),
        (["train"], r"unexpected argument 'train'"),
        (["--config=/nowhere/x.py"], r"/nowhere/x\.py: no such file"),
    ],
)  # fmt: skip
def test_a_wrong_argument_gives_one_line_that_names_it(tmp_path, arguments, expected):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    first = [] if arguments[0].startswith("--config=") else [f"--config={file}"]
    with pytest.raises(UserError) as error:
        parse(["main", *first, *arguments])
    assert re.search(expected, str(error.value)) and "\n" not in str(error.value)


def test_without_a_configuration(tmp_path):
    with pytest.raises(UserError, match=r"--config is missing: .*configs/demo\.py"):
        parse(["main"])
    (tmp_path / "other.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"no such file; there are .*other\.py"):
        parse(["main", f"--config={tmp_path / 'none.py'}"])
    with pytest.raises(UserError, match=r"other\.py: the file must have a get_config\(\)"):
        parse(["main", f"--config={tmp_path / 'other.py'}"])
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match=r"broken\.py: SyntaxError"):
        parse(["main", f"--config={tmp_path / 'broken.py'}"])


def test_values_of_every_type_can_be_set(tmp_path):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    options = ["--config.train.steps=9", "--config.optimizer.learning_rate", "1e-2"]
    options += ["--config.data.categories=01,wood", "--config.data.demo"]
    options += ["--config.evaluate.metrics=('aupro','pixel_ap')", "--config.data.root=a=b"]
    settings = parse(["main", f"--config={file}", *options])
    config = settings.config
    assert (config.train.steps, config.optimizer.learning_rate) == (9, 0.01)
    assert config.data.categories == ("01", "wood") and config.data.demo is True
    assert config.evaluate.metrics == ("aupro", "pixel_ap") and config.data.root == "a=b"
    assert settings.workdir == pathlib.Path("runs/tiny") and settings.mode == "train"


def test_help_lists_every_key_with_its_value(tmp_path, capsys):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    assert main(["main", f"--config={file}", "--help"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"--config\.optimizer\.learning_rate +0\.0005", printed)
    assert "--workdir" in printed and "--config.student.encoder" in printed


def test_the_process_ends_with_one_line_and_status_2(tmp_path):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    arguments = [f"--config={file}", "--config.train.stepz=3"]
    process = subprocess.run(
        [sys.executable, "-m", "stlm_jax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.count("\n") == 1 and "Did you mean config.train.steps?" in process.stderr


def test_a_reader_that_has_gone_is_no_error_of_the_disk(tmp_path):
    file = write_config(tmp_path / "tiny.py", tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "stlm_jax.main", f"--config={file}", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, b"")


# --- errors of the input ---


def test_missing_folder_and_category(place, capsys):
    missing = f"--config.data.root={place / 'nowhere'}"
    one_line_of_error(capsys, main(command(place, missing)), r"nowhere is not a folder")
    status = main(command(place, "--config.data.categories=disc,bottle"))
    one_line_of_error(capsys, status, r"has no 'bottle', it has disc, ring")
    status = main(command(place, "--config.data.root="))
    one_line_of_error(capsys, status, r"config\.data\.root is empty")
    assert restored_step(place, "run") == 6


def test_an_unreadable_image_is_named_and_the_checkpoint_stays(place, capsys):
    broken = place / "broken"
    shutil.copytree(place / "data", broken)
    for path in ("disc/train/good/003.png", "disc/test/spot/001.png"):
        (broken / path).write_bytes(b"no image")
    options = [f"--config.data.root={broken}", "--config.data.categories=disc"]
    status = main(command(place, *options, "--config.train.steps=9"))
    one_line_of_error(capsys, status, r"cannot read .*disc/train/good/003\.png")
    status = main(command(place, *options, "--mode=evaluate"))
    one_line_of_error(capsys, status, r"cannot read .*disc/test/spot/001\.png")
    assert restored_step(place, "run") == 6
    capsys.readouterr()
    skipping = [*options, "--config.data.on_error=skip", "--config.evaluate.panels=0"]
    shutil.copytree(place / "run", place / "skipped")
    assert main(command(place, *skipping, "--mode=evaluate", workdir="skipped")) == 0
    assert "1 of 5 images were left out" in capsys.readouterr().err
    status = main(command(place, *skipping, "--config.train.steps=9", workdir="skipped"))
    one_line_of_error(capsys, status, r"data order .*'images': 5.* does not fit .*'images': 4")


def test_a_changed_training_key_is_refused_with_both_values(place, capsys):
    status = main(command(place, "--config.optimizer.learning_rate=0.25"))
    one_line_of_error(
        capsys, status, r"config\.optimizer\.learning_rate=0\.0005, now it is 0\.25: use another"
    )
    status = main(command(place, "--config.train.steps=5"))
    one_line_of_error(capsys, status, r"trained for 6 steps, more than the 5 asked for")


def test_free_keys_may_change(place):
    settings = parse(command(place, "--config.log.every_steps=7", "--config.evaluate.panels=1"))
    check_same_run(settings.workdir, settings.config)


def test_a_checkpoint_of_another_model_is_refused(place, capsys):
    foreign = place / "foreign"
    shutil.copytree(place / "run" / "disc", foreign / "disc")  # without its config.json
    options = ["--config.student.encoder=tiny_vit_demo", "--config.data.categories=disc"]
    expected = r"checkpoint of another model: .*encoderS.* in the checkpoint"
    for mode in ("evaluate", "train"):
        status = main(command(place, *options, f"--mode={mode}", workdir="foreign"))
        one_line_of_error(capsys, status, expected)
    assert restored_step(place, "foreign") == 6


def test_evaluation_before_training(place, capsys):
    status = main(command(place, "--mode=evaluate", workdir="untrained"))
    one_line_of_error(capsys, status, r"untrained/disc: there is no checkpoint; train first")


def test_prediction_refuses_what_it_cannot_use(place, capsys):
    status = main(command(place, "--mode=predict", "--config.predict.input=x.png"))
    one_line_of_error(capsys, status, r"needs one category of disc, ring.*categories=disc")
    options = ["--mode=predict", "--config.data.categories=disc"]
    one_line_of_error(capsys, main(command(place, *options)), r"config\.predict\.input is empty")
    status = main(command(place, *options, f"--config.predict.input={place / 'none.png'}"))
    one_line_of_error(capsys, status, r"none\.png: no such file or folder")
    (place / "text.png").write_text("no image")
    options += [f"--config.predict.output={place / 'nothing'}"]
    status = main(command(place, *options, f"--config.predict.input={place / 'text.png'}"))
    one_line_of_error(capsys, status, r"cannot read .*text\.png")


def test_too_few_images_for_a_batch(place, capsys):
    status = main(command(place, "--config.train.batch_size=6", workdir="few"))
    one_line_of_error(capsys, status, r"disc: 5 training images are fewer than .*batch_size=6")
    assert not (place / "few").exists()


def restored_step(place, workdir):
    folder = place / workdir / "disc" / "checkpoints"
    with Checkpoints(folder, read_only=True) as checkpoints:
        return checkpoints.restore(student_shapes(place)).step


def student_shapes(place):
    return variable_shapes(build_stlm(parse(command(place)).config))
