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

from stlm_jax.cli.main import main as stlm
from stlm_jax.cli.main import parser
from stlm_jax.commands.serve import parser as serve_parser
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


def of_stlm(name, text=README):
    found = [words for words in commands(text) if words[:2] == ["stlm", name]]
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
    own = README[README.index("## Your own parts") : README.index("`--preset=demo`")]
    (training,), (prediction,) = of_stlm("train", own), of_stlm("predict", own)
    # The step itself is trained by the demo's tests; it would be compiled for half a minute.
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    monkeypatch.chdir(photographs)
    assert stlm([*training, *FASTER]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("SAM's weights are better") == 1
    assert printed.err.index("SAM's weights") < printed.err.index("DIR  2/2")
    assert stlm(prediction) == 0
    assert re.search(
        r"^0\.\d{4}  (good|defective) +\S*FOLDER/new/a\.png$", capsys.readouterr().out, re.M
    )
    (row,) = (json.loads(line) for line in (photographs / "found/predictions.jsonl").open())
    assert row["path"].endswith("FOLDER/new/a.png") and row["verdict"] in ("good", "defective")
    assert list((photographs / "found").rglob("overlay.png"))


def test_the_demo_is_not_told_of_sam(monkeypatch):
    said = []
    monkeypatch.setattr(start, "note", said.append)
    for name, count in (("demo", 0), ("own", 1)):
        config = parse(["main", f"--config={ROOT / 'configs' / name}.py"]).config
        said.clear()
        start.load_teacher(config)
        assert len(said) == count


def test_every_command_of_the_readme_is_accepted(photographs, monkeypatch):
    """Trainings down to the configuration, others down to their options."""
    asked = []
    monkeypatch.setattr("stlm_jax.main.carry_out", asked.append)
    monkeypatch.chdir(photographs)
    (photographs / "sam_vit_h_4b8939.pth").touch()
    for words in of_stlm("train"):
        assert stlm(words) == 0
    assert [str(settings.workdir) for settings in asked] == ["runs/mypart", "runs/mypart_sam"]
    assert asked[1].config.teacher.name == "vit_h" and asked[1].config.image_size == 1024
    for name in ("predict", "export"):
        for words in of_stlm(name):
            _, rest = parser().parse_known_args(words[1:])
            assert not rest
    (words,) = of_stlm("serve")
    assert serve_parser().parse_args(words[2:]).models == ["runs/mypart"]


def test_what_the_readme_installs_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"'\.\[([\w,]+)\]'", README)
    assert {"gpu", "tpu", "convert", "export"} <= {e for part in named for e in part.split(",")}
    assert {e for part in named for e in part.split(",")} <= set(extras["optional-dependencies"])
    assert "pip install 'stlm_jax" not in README and README.count("\n") <= 80
