"""The console script: which command it calls with which options, and how fast it helps."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stlm_jax.cli import calls
from stlm_jax.cli.main import COMMANDS, main


@pytest.fixture
def asked(monkeypatch):
    """The configuration, folder and mode that the program is called with."""
    found = []
    monkeypatch.setattr("stlm_jax.main.carry_out", found.append)
    return found


def photographs(folder, count=3):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.full((40, 40, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def stlm(*arguments):
    return main(["stlm", *map(str, arguments)])


# --- help ---


def test_help_imports_nothing_that_takes_long():
    code = (
        "import sys; from stlm_jax.cli.main import main\n"
        "for words in (['--help'], ['train', '-h'], ['export', '-h'], ['train', '--nope']):\n"
        "    try: main(['stlm', *words])\n"
        "    except SystemExit: pass\n"
        "print([m for m in ('jax', 'numpy', 'ml_collections', 'PIL') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.options is not None])
def test_every_command_shows_its_options_and_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        stlm(name, "--help")
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"example: {COMMANDS[name].example}" in " ".join(said.split())
    assert ("--data" in said) == (name in ("train", "check"))


def test_the_examples_are_of_their_commands():
    for name, command in COMMANDS.items():
        assert command.example.split()[:2] == ["stlm", name]


def test_without_a_command_there_is_help(capsys):
    assert stlm() == 0
    said = capsys.readouterr().out
    assert all(f"\n    {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_are_told_what_there_is(shell, capsys):
    assert stlm("completion", shell) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("predict", "--preset", "published", "--image_size"))


# --- training ---


def test_plain_photographs_are_trained_on_with_the_preset_said(tmp_path, asked, capsys):
    folder = photographs(tmp_path / "mypart")
    assert stlm("train", f"--data={folder}") == 0
    (settings,) = asked
    config = settings.config
    assert (config.data.source, config.data.train_dir) == ("folder", str(folder))
    assert (config.train.steps, config.image_size, str(settings.workdir)) == (
        300,
        256,
        "runs/mypart",
    )
    said = capsys.readouterr().err
    assert "preset demo" in said and "300 steps of 4 images" in said and "256 px" in said


@pytest.mark.parametrize("parts", [(), ("bolt", "nut")])
def test_a_tree_of_the_layout_is_known(tmp_path, asked, parts):
    for part in parts or [""]:
        photographs(tmp_path / "set" / part / "train/good")
    assert stlm("train", f"--data={tmp_path / 'set'}", f"--workdir={tmp_path / 'run'}") == 0
    assert asked[0].config.data.root == str(tmp_path / "set")
    assert asked[0].workdir == tmp_path / "run"


def test_short_options_and_keys_change_a_preset(tmp_path, asked):
    folder = photographs(tmp_path / "a")
    options = ["--preset=tiny", "--steps=7", "--batch=2", "--seed=3", "--config.loss.l1_weight=2"]
    assert stlm("train", f"--data={folder}", *options) == 0
    config = asked[0].config
    assert (config.image_size, config.train.steps, config.train.batch_size) == (128, 7, 2)
    assert (config.seed, config.loss.l1_weight) == (3, 2.0)
    assert stlm("train", f"--data={folder}", "--preset=fast") == 0
    assert asked[1].config.train.steps == 100


def test_a_teacher_of_another_width_has_a_new_student(tmp_path, asked, capsys):
    folder, file = photographs(tmp_path / "a"), tmp_path / "sam_vit_b_01ec64.pth"
    file.write_bytes(b"")
    assert stlm("train", f"--data={folder}", f"--teacher={file}") == 0
    config = asked[0].config
    assert (config.teacher.name, config.teacher.checkpoint) == ("vit_b", str(file))
    assert config.student.checkpoint == "" and "more steps" in capsys.readouterr().err
    assert stlm("train", f"--data={folder}", "--teacher=none", "--preset=published") == 0
    assert asked[1].config.teacher.checkpoint == "none" and asked[1].config.image_size == 1024


def test_a_run_goes_on_by_its_folder(tmp_path, asked):
    folder = photographs(tmp_path / "a")
    assert stlm("train", f"--data={folder}", f"--workdir={tmp_path / 'run'}") == 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(asked[0].config.to_json())
    assert stlm("train", f"--workdir={tmp_path / 'run'}", "--steps=400") == 0
    assert stlm("evaluate", tmp_path / "run", "--config.evaluate.batch_size=2") == 0
    _, more, evaluated = asked
    assert (more.config.train.steps, more.mode) == (400, "train")
    assert (evaluated.mode, evaluated.config.evaluate.batch_size) == ("evaluate", 2)


def test_the_demo_is_the_demo(asked):
    assert stlm("demo", "--config.train.steps=5") == 0
    assert asked[0].config.data.demo and asked[0].config.train.steps == 5


# --- the others ---


def test_a_set_is_checked_by_the_same_options(tmp_path, capsys):
    folder = photographs(tmp_path / "a", 5)
    assert stlm("check", f"--data={folder}") == 0
    assert "train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "options", "called"),
    [
        (
            "a.onnx",
            ["--precision=int8"],
            ("conversion.to_onnx", ["run", "a.onnx", "--precision=int8"]),
        ),
        ("a.pt", [], ("conversion.to_torch", ["run", "a.pt"])),
        ("a.xml", [], ("conversion.to_openvino", ["run", "a.xml"])),
        (
            "page",
            ["--format=web", "--precision=float16", "--onnxruntime_web=dist"],
            ("conversion.to_web", ["run", "page", "--precision=float16", "--onnxruntime_web=dist"]),
        ),
        ("a.bin", ["--format=stablehlo"], ("conversion.to_stablehlo", ["run", "a.bin"])),
    ],
)
def test_exports_are_those_of_the_conversions(monkeypatch, output, options, called):
    found = []
    module, arguments = called
    monkeypatch.setattr(f"{module}.main", lambda given: found.append(given) or 0)
    assert stlm("export", "run", output, *options) == 0
    assert found == [arguments]


@pytest.mark.parametrize("name", ["build", "compare", "plan", "sweep"])
def test_other_commands_have_all_their_arguments(name, monkeypatch):
    module = {"build": "stlm_jax.commands.build_tfds", "compare": "stlm_jax.commands.compare_runs"}
    found = []
    place = f"{module.get(name, f'launch.{name}')}.main"
    monkeypatch.setattr(place, lambda argv: found.append(argv) or 3)
    assert stlm(name, "--help", "x", "--a=b") == 3
    assert found[0][1:] == ["--help", "x", "--a=b"] and hasattr(calls, name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "give photographs, --data=DIR"),
        (["train", "--data=nowhere"], "--data=nowhere: is not a folder"),
        (["train", "--data=empty"], "--data=empty: holds no image and no train/good/"),
        (["train", "--data=full", "--teacher=gone.pth"], "--teacher=gone.pth: no such file"),
        (["train", "--data=full", "--speed=9"], "unknown argument '--speed=9'"),
        (["train", "--data=full", "--steps=x"], "invalid int value: 'x'"),
        (["train", "--data=full", "--config.nope=1"], "there is no key 'nope'"),
        (["trian"], "invalid choice: 'trian'"),
        (["export", "run", "a.xyz"], "a.xyz: give --format="),
        (["export", "run", "a.pt", "--precision=int8"], "is of --format=onnx, not of torch"),
        (["export", "run", "out", "--format=web", "--precision=int8"], "onnx, not of web"),
        (["export", "run", "a.pt", "--onnxruntime_web=x"], "is of --format=web, not of torch"),
        (["evaluate"], "required: RUN"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, monkeypatch, asked, arguments, said, capsys):
    photographs(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert stlm(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, json.dumps(error)
