"""The search: nothing is chosen on test data, nothing is lost or told twice, whatever is killed."""

import csv
import functools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import warm_search
from miniature import write_set
from other_processes import REPOSITORY
from PIL import Image

from launch.search import main
from stlm_jax.runtime.files import write_json

HERE = pathlib.Path(__file__).parent
SPACE = """
def suggest(trial):
    rate = trial.suggest_float("optimizer.learning_rate", 1e-4, 2e-2, log=True)
    return {"optimizer.learning_rate": rate,
            "loss.focal_gamma": trial.suggest_float("loss.focal_gamma", 0.0, 6.0)}
"""
RUN = f"""
import sys
from launch.search import main
from launch.tuning import batches, ending
batches.WORKER = (sys.executable, {str(HERE / "search_worker.py")!r})
ending.EVALUATE = (sys.executable, {str(HERE / "search_evaluation.py")!r})
sys.exit(main(["search", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    write_set(folder, ["disc"])
    (folder / "space.py").write_text(SPACE)
    return folder


def arguments(place, name, *options, space="space.py", trials=8):
    given = [f"--space={place / space}", f"--base={place / 'tiny.py'}", f"--trials={trials}",
             "--batch=4", f"--workdir={place / name}", "--config.calibration.held_out=0.4",
             *options]  # fmt: skip
    return list({option.partition("=")[0]: option for option in given}.values())


@functools.cache
def warm():
    """The process whose forks are the searches; it ends with this one, which holds its stdin."""
    return subprocess.Popen(
        [sys.executable, warm_search.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def search(place, name, *options, killed_at=0, **named):
    """Status and what is said of a search, in a process of its own, with the stand-in worker.

    `killed_at` is the number of the trial at whose asking it is killed, from 1.
    """
    files = [place / f"{name}.{end}" for end in ("out", "err")]
    request = [killed_at, *map(str, files), *arguments(place, name, *options, **named)]
    print(json.dumps(request), file=warm().stdin, flush=True)
    status = int(warm().stdout.readline())
    return status, *(file.read_text() for file in files)


def refused(capsys, *options):
    assert main(["search", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def rows_of(folder):
    with open(folder / "search/trials.csv") as file:
        return list(csv.DictReader(file))


def points_of(folder):
    """What every trial was and became, without its times."""
    return [
        {k: v for k, v in row.items() if k not in ("begun", "ended")} for row in rows_of(folder)
    ]


def journal(folder):
    return [json.loads(line) for line in (folder / "search/journal.log").open()]


def told(folder):
    """The trials whose end is in the journal, in order, as often as it is there."""
    finished = (2, 1, 3)  # optuna.trial.TrialState: pruned, complete, failed
    return [e["trial_id"] for e in journal(folder) if e["op_code"] == 6 and e["state"] in finished]


@pytest.fixture(scope="module")
def whole(place):
    """A search of eight trials that was never stopped."""
    status, out, err = search(place, "whole")
    assert status == 0, err
    return place / "whole", out, err


# --- what is refused ---


@pytest.mark.parametrize(
    "option",
    ["--objective=test", "--objective=image_auroc", "--objective=aupro", "--metric=test_aupro",
     "--metric=test/image_auroc"],
)  # fmt: skip
def test_no_test_metric_can_be_the_objective(place, capsys, option):
    line = refused(capsys, *arguments(place, "never", option))
    assert option in line and "nothing may be chosen on test data" in line
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"train.batch_size": trial.suggest_int("b", 1, 8)}', "cannot differ in train.batch_size"),
        ('{"optimizer.rate": trial.suggest_float("r", 0, 1)}', "cannot differ in optimizer.rate"),
        ('{"optimizer.momentum": trial.suggest_float("m", 1.5, 2)}', "must be 0 or more, below 1"),
        ("{}", "must return values by key"),
        ("trial.nothing()", "AttributeError"),
    ],
)
def test_a_space_that_no_ensemble_could_train_is_refused(place, capsys, body, said):
    (place / "wrong.py").write_text(f"def suggest(trial):\n    return {body}\n")
    line = refused(capsys, *arguments(place, "never", space="wrong.py"))
    assert f"--space={place / 'wrong.py'}" in line and said in line
    assert not (place / "never").exists()


def test_a_base_without_held_out_images_is_refused(place, capsys):
    options = arguments(place, "none", "--config.calibration.held_out=0")
    assert "set --config.calibration.held_out" in refused(capsys, *options)


def test_a_base_that_is_an_ensemble_is_refused(place, capsys):
    options = arguments(place, "never", "--config.ensemble.seeds=0,1")
    assert "config.ensemble.seeds" in refused(capsys, *options)


@pytest.mark.parametrize("option", ["--trails=3", "--seed=x", "--batch=0", "--workdir=gs://b/x"])
def test_other_arguments_are_refused(place, capsys, option):
    assert option.partition("=")[0] in refused(capsys, *arguments(place, "never", option))


def test_without_optuna_a_line_says_what_to_install(place):
    code = f"import sys; sys.modules['optuna'] = None\n{RUN.replace('sys.exit', 'print')}"
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments(place, "never")],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.stderr.strip().endswith("run pip install 'stlm_jax[search]'")
    assert ended.stdout.strip() == "2"


def test_another_search_in_the_folder_is_refused(place, whole, capsys):
    (place / "other.py").write_text(SPACE.replace("2e-2", "1e-2"))
    for option, said in (
        ("--seed=1", "--seed=0, now it is 1"),
        ("--metric=pixel_ap", "--metric=aupro, now it is pixel_ap"),
        ("--config.loss.l1_weight=2", "config.loss.l1_weight=1.0, now it is 2.0"),
        (f"--space={place / 'other.py'}", "whose content differs"),
    ):
        assert said in refused(capsys, *arguments(place, "whole", option))


# --- a search ---


def test_the_first_trial_is_the_base_and_each_batch_is_one_ensemble(place, whole):
    folder, _, err = whole
    rows = rows_of(folder)
    assert len(rows) == 8
    assert float(rows[0]["optimizer.learning_rate"]) == 5e-4  # tiny.py's, which are the published
    assert float(rows[0]["loss.focal_gamma"]) == 4
    trained = [json.loads(line) for line in (folder / "trained.jsonl").open()]
    assert [len(each["settings"]) for each in trained] == [4, 4]
    assert "8 are left, in 2 batches of up to 4: 48 steps" in err and "up to 0.0 GB of disk" in err
    assert len({row["optimizer.learning_rate"] for row in rows}) == 8


def test_only_what_diverged_is_pruned(place, whole):
    for row in rows_of(whole[0]):
        wild = float(row["optimizer.learning_rate"]) > 0.015
        assert row["state"] == ("PRUNED" if wild else "COMPLETE")
        assert bool(row["diverged"]) == wild == (row["aupro"] == "")


def test_a_picture_shows_what_is_optimised(whole):
    with Image.open(whole[0] / "objective.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[1] > 5 * 192 and (pixels == (0, 255, 213)).all(-1).sum() > 100


def test_the_end_shows_test_metrics_once(place, whole):
    folder, out, _ = whole
    assert (folder / "evaluated").read_text().split() == [
        "trial_0000",
        json.loads((folder / "search/table.json").read_text())["rows"].popitem()[1]["workdir"][
            -10:
        ],
    ]
    assert "no model of this search had been shown a test image before" in out
    assert out == (folder / "search/table.md").read_text()
    status, again, err = search(place, "whole")
    assert (status, again) == (0, out)
    assert len((folder / "evaluated").read_text().split()) == 2 and "trials 0" not in err


def test_test_metrics_that_somebody_looked_at_before_are_told(place):
    folder = place / "looked"
    folder.mkdir()
    (folder / "kill").write_text("search 4")
    assert search(place, "looked", trials=4)[0] == -9
    write_json(folder / "batches/0000/trial_0002/results/metrics.json", {"mean": {"aupro": 0.7}})
    _, out, _ = search(place, "looked", trials=4)
    assert "test metrics of trial_0002 had been computed before the search was over" in out


def test_more_trials_later_say_that_test_metrics_were_seen(place):
    assert search(place, "more", trials=4)[0] == 0
    status, out, err = search(place, "more", trials=8)
    assert status == 0, err
    assert "test metrics had been looked at before, of the choice of 4 (trial " in out
    assert len(rows_of(place / "more")) == 8
    assert "no model of this search" not in out


# --- what is killed ---


def test_a_search_killed_at_any_result_goes_on_with_the_same_trials(place, whole):
    """In the first batch by SIGKILL to the search, in the second to the worker, then at the end."""
    folder = place / "killed"
    folder.mkdir()
    for who, count, status in (
        ("search", 0, -9), ("search", 2, -9), ("worker", 3, 2), ("search", 4, -9),
        ("worker", 1, 2), ("search", 4, -9),
    ):  # fmt: skip
        (folder / "kill").write_text(f"{who} {count}")
        ended = search(place, "killed")
        assert ended[0] == status, ended
        if who == "worker":
            assert "was killed by signal 9" in ended[2].splitlines()[-1]
    assert search(place, "killed")[0] == 0
    assert points_of(folder) == points_of(whole[0])
    assert sorted(told(folder)) == list(range(8))


@pytest.fixture(scope="module")
def long(place):
    """So many trials that the last ones are no longer drawn at random."""
    assert search(place, "long", trials=16)[0] == 0
    assert "tpe:relative_params" in (place / "long/search/journal.log").read_text()
    return place / "long"


@pytest.mark.parametrize("call", [1, 15])
def test_a_search_killed_while_it_asks_asks_no_more_than_was_wanted(place, long, call):
    name = f"asking{call}"
    assert search(place, name, trials=16, killed_at=call)[0] == -9
    with open(place / name / "search/journal.log", "ab") as file:
        file.write(b'{"op_code":5,"work')  # half a line, of a kill while it was written
    assert search(place, name, trials=16)[0] == 0
    assert points_of(place / name) == points_of(long)


@pytest.mark.slow
def test_batches_of_a_search_that_lives_are_left_to_it(place, tmp_path):
    """One of this host holds a lock; one of another host is taken at its file's word."""
    assert search(place, "shared", trials=4)[0] == 0
    folder = place / "shared"
    (folder / "kill").write_text("search 0")
    assert search(place, "shared")[0] == -9  # trials 4 to 7 were asked for
    owner = folder / "batches/0004/owner"
    assert owner.is_file()
    hold = "import sys, time\nfrom pathlib import Path\nfrom stlm_jax.runtime.lock import only_here"
    hold += "\nwith only_here(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout.readline() == b"held\n"
    status, out, err = search(place, "shared")
    assert status == 0 and not out and "4 trials are left to other hosts' searches" in err
    process.communicate()
    owner.write_text("process 1 on elsewhere\n")
    assert "4 trials are left to other hosts' searches" in search(place, "shared")[2]
    assert len(told(folder)) == 4
    status, out, _ = search(place, "shared", "--take_over=elsewhere")
    assert status == 0 and out and sorted(told(folder)) == list(range(8))


def test_two_searches_share_a_study(place):
    command = [sys.executable, "-c", RUN, *arguments(place, "two")]
    processes = [
        subprocess.Popen(command, env={"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(100) for process in processes] == [0, 0]
    folder = place / "two"
    assert sorted(told(folder)) == list(range(8))
    trained = [json.loads(line)["batch"] for line in (folder / "trained.jsonl").open()]
    assert sorted(trained) == ["0000", "0004"]
    assert len({row["optimizer.learning_rate"] for row in rows_of(folder)}) == 8


def test_a_base_outside_the_space_is_a_run_beside_the_trials(place):
    text = SPACE.replace('trial.suggest_float("optimizer.learning_rate", 1e-4', "5 * trial."
                         'suggest_float("rate", 1e-4')  # fmt: skip
    (place / "outside.py").write_text(text)
    status, out, err = search(place, "outside", space="outside.py", trials=2)
    assert status == 0, err
    assert "a run beside the trials" in err
    trained = [json.loads(line) for line in (place / "outside/trained.jsonl").open()]
    assert trained[0]["settings"]["default"] == {} and len(trained[0]["settings"]) == 3
    assert "default, outside the space" in out


def test_ctrl_c_ends_with_a_line(place):
    slow = (
        "import sys, json\n"
        "if sys.argv[2:]: print(json.dumps({'steps': {'disc': 1}, 'bytes': 1}))\n"
        "else: print('works', flush=True); sys.stdin.read(); print('ends'); sys.exit(143)\n"
    )
    (place / "slow.py").write_text(slow)
    code = RUN.replace(str(HERE / "search_worker.py"), str(place / "slow.py"))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments(place, "stopped")],
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "works\n"
    process.send_signal(2)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert (
        out == "ends\n" and err.splitlines()[-1] == "stopped; run the same command again to go on"
    )
