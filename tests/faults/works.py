"""The kinds of work that are killed at random moments: how each begins, and what it must leave.

Each works in a folder of its own, on the data set, the configuration and the finished run that lie
in another, `base`. Nothing here computes when it is imported, so that processes can be forked.
"""

import hashlib
import importlib
import json
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[up]) for up in (1, 2)]

from miniature import stand_in_step  # noqa: E402

from stlm_jax.cli.main import main  # noqa: E402

Facts = dict[str, str]  # what the work has made, by name
FORMER = b"an export of an earlier day"
TARGETS = ("model.onnx", "model.pt", "model.safetensors", "model.stablehlo")
STEPS = 40
_TRAIN = (
    f"--config.train.steps={STEPS}", "--config.checkpoint.every_steps=2", "--config.image_size=32",
    "--config.log.every_steps=1", "--config.data.categories=disc", "--config.evaluate.panels=2",
    "--config.teacher.checkpoint=none",
)  # fmt: skip


class Work(NamedTuple):
    """A kind of work.

    Attributes:
        name: of the kind.
        ready: makes its folder ready for a first start, given `base` and the folder.
        run: does it, given both and the number of the round; the exit status.
        stages: what the process is at while a function runs, by the function.
        facts: of a folder, what must be as in one that was never killed.
        partly: of a folder at any time, what of `facts` may be there already, and must be whole.
        rooms: by name, bytes that are free on disks that do not suffice.
    """

    name: str
    ready: Callable[[pathlib.Path, pathlib.Path], Any]
    run: Callable[[pathlib.Path, pathlib.Path, int], int]
    stages: dict[str, str]
    facts: Callable[[pathlib.Path], Facts]
    partly: Callable[[pathlib.Path], Facts]
    rooms: dict[str, int]


def digest(content: bytes | str) -> str:
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()


def files(folder: pathlib.Path, *patterns: str) -> Facts:
    """The digests of the files of some names, by their paths."""
    return {
        path.relative_to(folder).as_posix(): digest(path.read_bytes())
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file() and not path.name.endswith(".tmp")
    }


def _new(base: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)


def _build(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    data = [f"--raw={base / 'data'}", f"--data_dir={folder / 'built'}"]
    return main(["stlm", "build", "mvtec_ad", *data])


def _built(folder: pathlib.Path) -> Facts:
    return files(folder, "built/*/*/*/*.array_record*")


# --- training, with evaluation and report behind it ---


def _train(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    """With a step that compiles at once: kills fall on files, not on the compiler."""
    importlib.import_module("stlm_jax.training.trainer").train_step = stand_in_step
    config = f"--config={base / 'tiny.py'}"
    return main(["stlm", "train", config, f"--workdir={folder / 'run'}", *_TRAIN])


def _trained(folder: pathlib.Path) -> Facts:
    """State, position of the data, logged steps, and the files of the evaluation."""
    import jax

    from stlm_jax.models.build import build_stlm
    from stlm_jax.training.state import abstract_train_state
    from stlm_jax.weights.checkpoint import Checkpoints
    from stlm_jax.workdir import stored_config

    run = folder / "run"
    config = stored_config(run)
    template = abstract_train_state(config, build_stlm(config))
    with Checkpoints(run / "disc/checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(template.student(), template.training())
    leaves = [leaf.tobytes() for leaf in jax.tree.leaves((state.student, state.training))]
    lines = [json.loads(line) for line in (run / "disc/metrics.jsonl").open()]
    logged = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
    facts = {
        "state": digest(b"".join(leaves)),
        "step": str(state.step),
        "data": json.dumps(state.data, sort_keys=True),
        "logged": json.dumps(logged, sort_keys=True),
        **files(run, "config.json", "disc/calibration.json", "disc/depth.json"),
        **_reported(run),
    }
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    return facts


def _training(folder: pathlib.Path) -> Facts:
    run = folder / "run"
    for path in (run / "config.json", run / "run.json", run / "disc/calibration.json"):
        if path.exists():
            json.loads(path.read_text())
    return files(run, "config.json", "results/metrics.json")


# --- the teacher's features ---


def _store(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    from stlm_jax.commands.teacher_store import main

    options = [f"--config.teacher.store={folder / 'store'}", "--config.teacher.store_variants=8"]
    return main(["teacher_store", f"--config={base / 'tiny.py'}", *options])


def _stored(folder: pathlib.Path) -> Facts:
    return files(folder, "store/*.json", "store/*/*")


# --- exports ---


def _earlier_exports(base: pathlib.Path, folder: pathlib.Path) -> None:
    for name in TARGETS[::2]:  # a former file is there of every other one
        (folder / "out").mkdir(parents=True, exist_ok=True)
        (folder / "out" / name).write_bytes(FORMER)


def _export(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    target = TARGETS[number % len(TARGETS)]
    return main(["stlm", "export", str(base / "run/disc"), str(folder / "out" / target)])


def _exporting(folder: pathlib.Path) -> Facts:
    """All but StableHLO, whose bytes differ from one process to the next: it must be readable."""
    found = files(folder, "out/*")
    program = folder / "out/model.stablehlo"
    if program.exists():
        import jax.export

        jax.export.deserialize(bytearray(program.read_bytes()))
    return {
        name: of
        for name, of in found.items()
        if of != digest(FORMER) and not name.startswith("out/model.stablehlo")
    }


def _exported(folder: pathlib.Path) -> Facts:
    from stlm_jax.inference.stablehlo_model import StablehloModel
    from stlm_jax.weights.digest import CONTENT, FILE

    program = folder / "out/model.stablehlo"
    if not program.exists():
        return _exporting(folder)
    said = json.loads(program.with_name(f"{program.name}.json").read_text())
    StablehloModel(program)  # which refuses what is not of its digests
    assert said.pop(FILE) and said.pop(CONTENT)  # of this process's bytes
    return _exporting(folder) | {"stablehlo": json.dumps(said, sort_keys=True)}


# --- evaluation and report ---


def _finished(base: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(base / "run", folder / "run")


def _evaluate(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    return main(["stlm", "evaluate", str(folder / "run"), "--config.evaluate.panels=6"])


def _reported(run: pathlib.Path) -> Facts:
    facts = files(run, "results/table.csv", "results/metrics.json", "results/panels/*")
    told = (run / "results/table.md").read_text().splitlines()
    facts["table.md"] = "\n".join(line for line in told if not line.startswith("Cost: "))
    details = json.loads((run / "results/details.json").read_text())
    cost = details.pop("cost")
    page = (run / "results/report.html").read_text()
    assert page.rstrip().endswith("</html>") and cost["device"] in page
    assert all(len(list(path.glob("events.*.evaluation"))) == 1 for path in run.glob("disc"))
    return facts | {"details": json.dumps(details, sort_keys=True)}


def _report(folder: pathlib.Path) -> Facts:
    from stlm_jax.report.replicates import read_replicates

    drawn = read_replicates(folder / "run/results/replicates.npz")
    values = {name: [v.tolist() for v in one.metrics.values()] for name, one in drawn.items()}
    return _reported(folder / "run") | {"replicates": json.dumps(values, sort_keys=True)}


def _reporting(folder: pathlib.Path) -> Facts:
    run = folder / "run"
    json.loads((run / "results/details.json").read_text())
    assert (run / "results/report.html").read_text().rstrip().endswith("</html>")
    return files(run, "results/metrics.json", "results/panels/*")


# --- prediction ---


def _predict(base: pathlib.Path, folder: pathlib.Path, number: int) -> int:
    options = ["--recursive", f"--output={folder / 'out'}", "--maps=png16", "--overlays"]
    return main(["stlm", "predict", str(base / "run/disc"), str(base / "photos"), *options])


def _rows(folder: pathlib.Path) -> Facts:
    path = folder / "out/predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = {}
    for line in lines:
        if not line.endswith(b"\n"):  # cut when the process was killed
            continue
        row = json.loads(line)
        row.pop("ms")
        assert row["path"] not in rows, f"{row['path']} is there twice"
        rows[row["path"]] = json.dumps(row, sort_keys=True)
        for kind in ("map", "overlay"):
            rows[row[kind]] = digest((folder / "out" / row[kind]).read_bytes())
    return rows


def _predicted(folder: pathlib.Path) -> Facts:
    return _rows(folder) | files(folder / "out", "*/*/*", "*/*/*/*")


_CHECKPOINTS = "stlm_jax.weights.checkpoint:Checkpoints"
_REPORT = "stlm_jax.report.write"
WORKS = (
    Work("train", _new, _train, {
        "stlm_jax.training.trainer:Trainer.fit": "steps",
        "stlm_jax.training.trainer:compile_apart": "compiles",
        f"{_CHECKPOINTS}.restore": "restores",
        f"{_CHECKPOINTS}._write": "saves",
        "stlm_jax.evaluation.calibrate:calibrate": "calibrates",
        "stlm_jax.main:evaluate_and_report": "evaluates",
        f"{_REPORT}:write_results": "reports",
    }, _trained, _training, {"full": 0, "nearly full": 400_000}),
    Work("store", _new, _store, {
        "stlm_jax.training.store_writer:read_teacher": "reads the teacher",
        "stlm_jax.training.store_writer:Writer.write": "computes",
        "stlm_jax.training.feature_store:FeatureStore.write": "writes",
    }, _stored, _stored, {"full": 0, "nearly full": 100_000}),
    Work("export", _earlier_exports, _export, {
        "conversion.onnx.export:export_onnx": "computes",
        "conversion.to_stablehlo:export_stablehlo": "computes",
        "conversion.to_torch:convert_file": "computes",
        "stlm_jax.runtime.files:open_atomically": "writes",
        "stlm_jax.weights.file:open_atomically": "writes",
        "conversion.to_torch:open_atomically": "writes",
    }, _exported, _exporting, {"full": 0, "nearly full": 3_000_000}),
    Work("report", _finished, _evaluate, {
        "stlm_jax.evaluation.evaluate:evaluate": "evaluates",
        f"{_REPORT}:write_panels": "writes panels",
        f"{_REPORT}:write_results": "writes results",
        f"{_REPORT}:write_report": "writes the page",
    }, _report, _reporting, {"full": 0, "nearly full": 60_000}),
    Work("predict", _new, _predict, {
        "stlm_jax.prediction.model:load": "loads the model",
        "stlm_jax.prediction.run:_judge_all": "judges",
        "stlm_jax.prediction.judge:write_map": "writes a picture",
        "stlm_jax.prediction.judge:write_overlay": "writes a picture",
        "stlm_jax.prediction.journal:Journal.append": "writes a row",
    }, _predicted, _rows, {"full": 0, "nearly full": 100_000}),
)  # fmt: skip
BUILD = Work("build", _new, _build, {}, _built, _built, {"full": 0, "nearly full": 60_000})
DISK_WORKS = (*WORKS, BUILD)
