"""README's "Your own parts" as it is written, on a few small photographs."""

import json
import pathlib
import re
import shlex
import tomllib

import numpy as np
import pytest
from miniature import stand_in_step
from PIL import Image

from stlm_jax.main import main
from stlm_jax.settings import parse
from stlm_jax.training import start

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FASTER = ["--config.train.steps=2", "--config.evaluate.latency_runs=0"]


def commands(text):
    """The shell commands of a Markdown text, in words."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def of_module(name, text=README):
    found = [words[3:] for words in commands(text) if words[:3] == ["python", "-m", name]]
    assert found
    return found


@pytest.fixture
def photographs(tmp_path):
    """Good ones only, larger than the network's square, in the folder of the README."""
    rng = np.random.default_rng(0)
    for index in range(6):
        path = tmp_path / f"DIR/train/good/{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(90, 110, (300, 400, 3), dtype=np.uint8)).save(path)
    (tmp_path / "FOLDER/new").mkdir(parents=True)
    Image.fromarray(rng.integers(90, 110, (300, 400, 3), dtype=np.uint8)).save(
        tmp_path / "FOLDER/new/a.png"
    )
    return tmp_path


def test_own_parts_as_the_readme_has_it(photographs, monkeypatch, capsys):
    pytest.importorskip("skimage")
    own = README[README.index("## Your own parts") : README.index("`configs/own.py` takes")]
    training, prediction = of_module("stlm_jax.main", own)
    assert [word for word in training if word.startswith("--config.")] == ["--config.data.root=DIR"]
    assert not any(word.startswith("--config=") for word in prediction)
    # The step itself is trained by the demo's tests; it would be compiled for half a minute.
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    monkeypatch.chdir(photographs)
    (photographs / "configs").symlink_to(ROOT / "configs")
    assert main(["main", *training, *FASTER]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("SAM's weights are better") == 1
    assert printed.err.index("SAM's weights") < printed.err.index("DIR  2/2")
    assert main(["main", *prediction]) == 0
    assert re.search(
        r"^0\.\d{4}  (good|defective) +FOLDER/new/a\.png$", capsys.readouterr().out, re.M
    )
    rows = json.loads((photographs / "runs/mypart/results/predict/DIR/scores.json").read_text())
    assert rows[0]["map"].endswith("new/a.png.map.png")


def test_the_demo_is_not_told_of_sam(monkeypatch):
    said = []
    monkeypatch.setattr(start, "note", said.append)
    for name, count in (("demo", 0), ("own", 1)):
        config = parse(["main", f"--config={ROOT / 'configs' / name}.py"]).config
        said.clear()
        start.load_teacher(config)
        assert len(said) == count


def test_every_run_command_of_the_readme_is_accepted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs/mypart").mkdir(parents=True)
    own = parse(["main", "--config=configs/own.py"]).config
    (tmp_path / "runs/mypart/config.json").write_text(own.to_json())
    for words in of_module("stlm_jax.main"):
        assert parse(["main", *words]).workdir.parent.name == "runs"


def test_what_the_readme_installs_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"'\.\[([\w,]+)\]'", README)
    assert {"gpu", "tpu", "convert", "export"} <= {e for part in named for e in part.split(",")}
    assert {e for part in named for e in part.split(",")} <= set(extras["optional-dependencies"])
    assert "pip install 'stlm_jax" not in README and README.count("\n") <= 80
