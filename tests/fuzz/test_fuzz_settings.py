"""Options, and the JSON files of a run that users can edit, with any values in them."""

import contextlib
import json
import math
import shutil
from types import SimpleNamespace

import pytest
import stand_in
from damage import damaged, damaged_json
from hypothesis import given
from hypothesis import strategies as st
from outcome import budget, command, refusal

from stlm_jax import config as configuration
from stlm_jax.cli.main import main
from stlm_jax.config.keys import KEYS
from stlm_jax.data.checked import known_problems
from stlm_jax.data.depth import stored
from stlm_jax.inference import calibration
from stlm_jax.report.details_json import read_configuration, read_protocol
from stlm_jax.report.run_facts import of_run
from stlm_jax.report.tables import read_results
from stlm_jax.runtime.metric_writer import _lines_until
from stlm_jax.settings import parse
from stlm_jax.workdir import check_same_run, read_run, stored_config, write_run

TEXTS = st.one_of(
    st.text(max_size=12), st.integers().map(str), st.floats().map(str),
    st.sampled_from(["", "nan", "inf", "-inf", "1e999", "-0", "0x10", "1_000", "٣", "²", "True",
                     "None", "[]", "()", "a,b", ",", "9" * 5000, "none", "all", "\x00", "²,³"]),
)  # fmt: skip
OPTIONS = st.lists(st.tuples(st.sampled_from(sorted(KEYS)), TEXTS), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "plain.py"
    path.write_text("from stlm_jax.config import default as get_config\n")
    return path


@budget(60, 3000)
@given(options=OPTIONS, more=st.lists(st.text(max_size=15), max_size=1))
def test_options_of_any_values(config_file, options, more):
    arguments = [f"--config.{key}={value}" for key, value in options]
    found, _ = refusal(
        "options", lambda: parse(["x", f"--config={config_file}", *arguments, *more])
    )
    if found is not None and hasattr(found, "config"):
        configuration.check(found.config)
        text = json.dumps(json.loads(found.config.to_json()), allow_nan=False)
        assert configuration.of_values(json.loads(text)) is not None
        for name, value in configuration.flatten(found.config).items():
            assert not isinstance(value, float) or math.isfinite(value), name


# --- a run's files ---


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited") / "run"
    shutil.copytree(finished_run / "run", folder, ignore=shutil.ignore_patterns("checkpoints"))
    checked = json.loads((folder / "data_check.json").read_text())
    problem = {"kind": "truncated", "text": "a.png is cut", "fatal": True, "training": False}
    (folder / "data_check.json").write_text(json.dumps(checked | {"problems": [problem, problem]}))
    for step in (4, 6):
        (folder / "disc/checkpoints" / str(step)).mkdir(parents=True)
    return folder


@contextlib.contextmanager
def edited(path, data):
    """A file with other content, put back afterwards."""
    content = path.read_bytes()
    choice = data.draw(st.integers(0, 9))
    try:
        if choice == 0:
            path.write_bytes(data.draw(damaged(content)))
        elif choice == 1:
            path.write_bytes(data.draw(st.binary(max_size=40)))
        else:
            path.write_bytes(data.draw(damaged_json(json.loads(content))))
        yield
    finally:
        path.write_bytes(content)


@budget(30, 1500)
@given(data=st.data())
def test_config_json(run, data):
    """The configuration of a run: another valid one, or a refusal that names the file or key."""
    whole = stored_config(run)
    with edited(run / "config.json", data):
        found, _ = refusal("config.json", lambda: parse(["x", f"--workdir={run}"]))
        if found is not None:
            configuration.check(found.config)
        refusal("same run", lambda: check_same_run(run, whole))
        refusal("stored", lambda: stored_config(run), run)


@budget(12, 600)
@given(data=st.data())
def test_run_json(run, data):
    """It only tells: whatever it holds, a run goes on and its report is written."""
    config = stored_config(run)
    with edited(run / "run.json", data):
        seen = SimpleNamespace(config=config, cost=SimpleNamespace(device="cpu"))
        facts, _ = refusal("run.json", lambda: of_run(seen, run))
        assert facts and all(isinstance(value, str) for value in facts.values())
        refusal("run.json", lambda: read_run(run))
        before = (run / "config.json").read_bytes()
        refusal("run.json", lambda: write_run(run, config, ("a",)))
        (run / "config.json").write_bytes(before)
        assert json.loads((run / "run.json").read_text())["command"] == "a"


@budget(40, 2500)
@given(data=st.data())
def test_calibration_json(run, data):
    folder, config = run / "disc", stored_config(run)
    with edited(folder / "calibration.json", data):
        for load in (
            lambda: (calibration.load(folder),),
            lambda: (calibration.load(folder, config),),
            lambda: (calibration.load_if_current(folder, config),),
        ):
            found, _ = refusal("calibration", load, folder)
            if found is not None and found[0] is not None:
                known = found[0]
                assert isinstance(known.images, int) and known.images >= 0
                for number in (known.threshold, known.normaliser, known.pixel_threshold):
                    assert type(number) in (int, float) and math.isfinite(number)
                assert 0 <= float(known.normalise(0.5)) <= 1


@budget(40, 2500)
@given(data=st.data(), file=st.sampled_from(
    ["data_check.json", "disc/depth.json", "results/details.json", "results/metrics.json"]
))  # fmt: skip
def test_other_files_of_a_run(run, data, file):
    path = run / file
    of = json.loads(path.read_text()).get("of", "")
    with edited(path, data):
        if file == "data_check.json":
            found, _ = refusal(file, lambda: (known_problems(path, of),))
            for problem in found[0] or ():
                assert isinstance(problem.text, str) and isinstance(problem.fatal, bool)
                assert isinstance(problem.kind, str) and isinstance(problem.training, bool)
        elif file == "disc/depth.json":
            found, _ = refusal(file, lambda: stored(path.parent), path)
            assert found is None or isinstance(found, str)
        elif file == "results/details.json":
            refusal(file, lambda: read_protocol(path), path)
            refusal(file, lambda: (read_configuration(path),))
        else:
            refusal(file, lambda: read_results(path), path)


@budget(15, 800)
@given(data=st.data())
def test_metrics_of_training(run, data, tmp_path_factory):
    """`metrics.jsonl`, whose lines a run that goes on takes over."""
    path = run / "disc" / "metrics.jsonl"
    content = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged(content)))
        found, _ = refusal("metrics.jsonl", lambda: _lines_until(path, 4))
        assert found is not None and all(json.loads(line)["step"] <= 4 for line in found)
    finally:
        path.write_bytes(content)


# --- predictions.jsonl ---


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A prediction that is done: the arguments of its command, and its output."""
    folder = tmp_path_factory.mktemp("predicted")
    with pytest.MonkeyPatch.context() as patch:
        stand_in.use(patch.setattr)
        model = stand_in.model_file(folder)
        for number in range(4):
            stand_in.grey(folder / f"photos/{number}.png", 40 * number, (20, 16))
        arguments = ["stlm", "predict", str(model), str(folder / "photos")]
        arguments.append(f"--output={folder / 'out'}")
        assert command(main, arguments)[0] == 0
        yield arguments, folder / "out"


@budget(25, 1000)
@given(data=st.data(), file=st.sampled_from(["predictions.jsonl", "predictions.json"]))
def test_predictions(predicted, data, file):
    """An output goes on with what is whole in it: every image has one row in the end.

    Cut, that is; of other damage in a line that is still JSON nothing tells.
    """
    arguments, output = predicted
    before = {path: path.read_bytes() for path in output.iterdir() if path.is_file()}
    path = output / file
    try:
        if file.endswith("l"):
            lines = before[path].splitlines(keepends=True)
            kept = b"".join(lines[: data.draw(st.integers(0, 4))])
            cut = data.draw(st.integers(0, len(kept)))
            choice = data.draw(st.integers(0, 2))
            is_cut = choice > 0
            new = kept[:cut] if choice else data.draw(damaged(kept or b"x"))
            path.write_bytes(new + (b"[" * 60_000 if choice == 2 else b""))
        else:
            is_cut = False
            path.write_bytes(data.draw(damaged_json(json.loads(before[path]))))
        status, said = command(main, arguments)
        if status != 2:
            rows = [json.loads(line) for line in (output / "predictions.jsonl").open()]
            if is_cut:
                whole = before[output / "predictions.jsonl"].splitlines()
                ids = sorted(json.loads(line)["id"] for line in whole)
                assert sorted(row["id"] for row in rows) == ids, said
    finally:
        for kept_path, content in before.items():
            kept_path.write_bytes(content)
