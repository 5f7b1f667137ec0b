"""Every command of the documents is run, read by its own parser, or says what it needs."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from documented import PAGES, ROOT, commands, needed
from miniature import stand_in_step
from PIL import Image
from reading import require_readable

from stlm_jax.cli.main import main as stlm
from stlm_jax.config import BY_CATEGORY, KEYS, check, default

ALL = [command for page in PAGES for command in commands(page)]
LINKED = ("configs", "launch", "tests", "requirements.lock", "Makefile", "pyproject.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader stands who has followed the documents: photographs, a run, files."""
    found = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for place in ("DIR/train/good", "photos", "FOLDER/new", "new_photos", "new", "mvtec_ad"):
        (found / place).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(90, 110, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(found / place / f"{number}.png")
    for name in LINKED:
        (found / name).symlink_to(ROOT / name)
    (found / "sam_vit_h_4b8939.pth").touch()
    config = default()
    for run in ("RUN", "DIR"):
        (found / run).mkdir(exist_ok=True)
        (found / run / "config.json").write_text(config.to_json_best_effort())
    return found


def test_there_are_commands_of_every_page_that_has_some():
    pages = {command.page for command in ALL}
    assert {"README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/scale.md"} <= pages
    assert len(ALL) > 100
    for page in PAGES:  # none hides in a block of another language
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M):
            assert kind == "sh" or not re.search(r"^(\$ |stlm |python -m |make |pip )", block, re.M)


@pytest.mark.parametrize("command", ALL, ids=lambda c: f"{pathlib.Path(c.page).stem}:{c.text}")
def test_a_command_is_read_by_its_program(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    require_readable(command.words())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_cannot_be_run_here_says_what_it_needs(page):
    missing = {c.text: needed(c) - c.marks for c in commands(page) if needed(c) - c.marks}
    assert not missing


# --- keys ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_keys_in_sentences_are_keys(page):
    groups = {name.partition(".")[0] for name in KEYS if "." in name} - {"data", "log", "train"}
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        option = re.fullmatch(r"--config\.([\w.]+)(=\S*)?", span)
        said = option or re.fullmatch(rf"((?:{'|'.join(sorted(groups))})\.[a-z_.]+)(=\S*)?", span)
        if said and said[1] != "KEY" and not said[1].endswith((".html", ".json", ".jsonl", ".py")):
            name = said[1]
            known = name in KEYS or any(key.startswith(f"{name}.") for key in KEYS)
            assert known or any(name.startswith(f"{group}.") for group in BY_CATEGORY), span


def test_options_in_sentences_are_options():
    rooms = ("stlm_jax", "conversion", "launch", "benchmarks")
    source = "".join(path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py"))
    others = {"xla_gpu_autotune_level"}  # of XLA
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for option in re.findall(r"`--([a-z]\w+)[=`]", text):
            known = re.search(rf"--{option}\b|\"{option}\"", source) or option in others
            assert known, f"{page.name}: --{option}"


# --- commands that are run ---

TINY = ["--config.image_size=64", "--config.teacher.name=vit_tiny", "--config.train.steps=2",
        "--config.teacher.checkpoint=random", "--config.student.encoder=tiny_vit_test",
        "--config.student.checkpoint=", "--config.data.texture_count=4",
        "--config.evaluate.latency_runs=0", "--config.evaluate.batch_size=1"]  # fmt: skip


def of(page, *starts):
    """The words of those commands of a page that begin so, in its order."""
    found = [c.words() for c in commands(ROOT / page) if c.text.startswith(starts)]
    assert len(found) >= len(starts)
    return found


@pytest.fixture(scope="module")
def walked(folder):
    """Where the tutorial was walked, of networks that are small."""
    pytest.importorskip("skimage")
    check, train, predict, *_ = of("docs/tutorial.md", "stlm check", "stlm train", "stlm predict")
    with pytest.MonkeyPatch.context() as patch:
        # The step itself is trained by other tests; it would be compiled for long.
        patch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
        patch.chdir(folder)
        assert stlm(check) == 0
        assert stlm([*train, *TINY]) == 0
        assert stlm(predict) == 0
    return folder


def test_the_tutorial_is_walked(walked):
    rows = [json.loads(line) for line in (walked / "found/predictions.jsonl").open()]
    assert len(rows) == 8 and all(row["verdict"] in ("good", "defective") for row in rows)
    assert len(list((walked / "found").rglob("overlay.png"))) == 8


def test_frames_of_a_film_are_predicted(walked, monkeypatch):
    (words,) = [words for words in of("docs/predict.md", "stlm predict") if "frames" in words[3]]
    (walked / "frames").mkdir()
    for number in (1, 2):
        shutil.copy(walked / "photos/0.png", walked / f"frames/{number:06}.png")
    monkeypatch.chdir(walked)
    assert stlm([*words[:-1], "--output=film"]) == 0
    assert (walked / "film/predictions.jsonl").read_text().count("\n") == 2


def test_the_torch_file_is_written(walked, monkeypatch):
    pytest.importorskip("torch")
    from conversion.to_torch import main

    ((*_, model, output),) = of("docs/weights.md", "python -m conversion.to_torch")
    monkeypatch.chdir(walked)
    assert main([model, output]) == 0 and (walked / output).is_file()


def blocks(page):
    """Python of a page, without lines that need what is not here."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    return ["\n".join(x for x in b.splitlines() if "# needs " not in x) for b in found]


def test_python_of_the_documents_runs(walked, monkeypatch):
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES]
    assert [page for page in pages if blocks(page)] == [
        "README.md", "docs/running.md", "docs/search.md", "docs/weights.md",
    ]  # fmt: skip
    monkeypatch.chdir(walked)
    images = np.full((1, 50, 60, 3), 100, np.uint8)
    for page in ("README.md", "docs/weights.md"):
        (block,) = blocks(page)
        names = {"images": images}
        exec(block, names)
        result = names["result"]
        assert result.anomaly_map.shape == (1, 50, 60) and result.is_anomalous.shape == (1,)
        assert result.score.shape == result.normalised.shape == (1,)


def test_python_of_configurations_and_spaces_runs(tmp_path):
    names = {"config": default()}
    (block,) = blocks("docs/running.md")
    exec(block, names)
    check(names["config"])
    assert set(names["config"].ensemble.settings) == {"base", "low_rate"}
    pytest.importorskip("optuna")
    from launch.tuning.space import check_space, load_space

    (block,) = blocks("docs/search.md")
    (tmp_path / "space.py").write_text(block)
    keys = check_space(load_space(tmp_path / "space.py"), default())
    assert list(keys) == ["optimizer.learning_rate"]


def test_requests_of_the_documents_are_answered(tmp_path, monkeypatch):
    pytest.importorskip("fastapi")
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    monkeypatch.syspath_prepend(ROOT / "tests/serving")
    from stand_in_model import StandIn, served

    from stlm_jax.serving.options import Options
    from stlm_jax.serving.service import Service

    for name in ("photo.jpg", "a.png", "b.png"):
        Image.new("RGB", (40, 30), (200, 0, 0)).save(tmp_path / name)
    requests = of("docs/serve.md", "curl")
    service, answers = Service(Options({"disc": "disc"}), lambda name: StandIn()), []
    service.start()
    with served(service) as port:
        while not service.ready:
            time.sleep(0.002)
        for words in requests:
            words = [word.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for word in words]
            ended = subprocess.run([*words, "--silent", "--fail"], cwd=tmp_path, check=True,
                                   capture_output=True)  # fmt: skip
            answers.append(ended.stdout)
    assert len(requests) == 5
    assert [json.loads(answers[i])["verdict"] for i in (0, 1)] == ["defective"] * 2
    assert [row["file"] for row in json.loads(answers[4])] == ["a.png", "b.png"]
    with Image.open(tmp_path / "overlay.png") as overlay, Image.open(tmp_path / "map.png") as map_:
        assert overlay.size == map_.size == (40, 30) and map_.mode == "I;16"


@pytest.mark.slow
def test_long_commands_run(walked, monkeypatch):
    """As they are written, but for sizes; each takes up to minutes."""
    pytest.importorskip("jax2onnx")
    monkeypatch.chdir(walked)
    (export,) = of("docs/tutorial.md", "stlm export runs/mypart mypart.onnx")[:1]
    assert stlm(export) == 0 and (walked / "mypart.onnx").is_file()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in (
        [*of("docs/benchmarks.md", "python -m benchmarks.metrics")[0], "--images=2", "--size=64"],
        of("docs/scale.md", "python -m launch.plan --config=configs/demo.py --topology=cpu")[0],
        [*of("docs/ablations.md", "python -m launch.sweep")[0], "--dry_run"],
        of("docs/demo.md", "python -m stlm_jax.commands.draw_demo")[0],
    ):
        subprocess.run([sys.executable, *words[1:]], check=True, env=environment, cwd=walked)
