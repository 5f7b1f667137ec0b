"""The sweep through its command line, with a stand-in for the trainings."""

import contextlib
import json
import pathlib
import re
import shlex
import sys
import textwrap

import pytest
import stand_in_main
import submitit  # noqa: F401  # here: its logging closes what a captured test writes to
from miniature import write_set

from launch import sweep
from launch.study import packs, work
from launch.study.jobs import is_at_work
from launch.study.packs import packs_of, seeds_of
from launch.study.state import cost as cost_of_run
from launch.study.studies import changed, parted, read_studies
from stlm_jax.config import flatten
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.lock import only_here
from stlm_jax.settings import load_config, parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
ABLATIONS = ROOT / "configs/ablations.py"
STUDIES = """
def get_studies(base):
    return {
        "two": {
            "whole": {},
            "good": {"loss.l1_weight": 2},
            "poor": {"student.levels": "2", "loss.focal_gamma": 2.0},
            "wide": {"student.segmentation_channels": 16},
        },
        "bad": {"whole": {}, "fails": {"loss.l1_weight": 2.0}, "good": {"loss.l1_weight": 3.0}},
        "dead": {"whole": {}, "killed": {"loss.l1_weight": 2.0}, "good": {"loss.l1_weight": 3.0}},
        "nan": {"whole": {}, "diverges": {"optimizer.learning_rate": 9.0}},
        "lost": {"whole": {}, "vit_b": {"teacher.name": "vit_b", "teacher.checkpoint": "no.pth"}},
        "nothing": {},
        "unknown": {"whole": {}, "b": {"loss.l2_weight": 1}},
        "range": {"whole": {}, "b": {"optimizer.b1": 1.5}},
        "name": {"a/b": {}},
    }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_set(folder)
    (folder / "studies.py").write_text(STUDIES)
    return folder


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Packs run the stand-in, and are looked at more often."""
    script = stand_in_main.__file__
    monkeypatch.setattr(
        packs.Pack, "command", lambda self, base: [sys.executable, script, *self.options(base)]
    )
    monkeypatch.setattr(work, "_POLL", 0.1)


class HereJob:
    """A job that is over at once, in this process, where modules are loaded."""

    def __init__(self, pack, command):
        pack.folder.mkdir(parents=True, exist_ok=True)
        with (pack.folder / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
            self.status = stand_in_main.main(command[1:])

    def done(self):
        return True

    def result(self):
        return self.status


class HereSubmitter:
    def __init__(self, kind, folder, options):
        self.earlier = {}

    def __call__(self, pack, command):
        return HereJob(pack, command)


@pytest.fixture
def here(monkeypatch):
    """In the place of submitit, whose processes take seconds each."""
    monkeypatch.setattr("launch.study.jobs.Submitter", HereSubmitter)


def run(place, study, workdir, *options):
    return sweep.main([
        "sweep", f"--config={place / 'studies.py'}:{study}", f"--base={place / 'tiny.py'}",
        f"--workdir={workdir}", "--seeds=2", "--config.train.steps=15", *options,
    ])  # fmt: skip


def made(workdir):
    """The runs of each job, in order."""
    file = workdir / "made.txt"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def rows(workdir):
    text = (workdir / "study/table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split("|")[1].strip(" *"): line for line in lines}


# --- packs ---


def test_settings_that_differ_in_numbers_share_a_program(place, tmp_path):
    base = load_config(place / "tiny.py")
    _, settings = read_studies(f"{place / 'studies.py'}:two", base)
    whole, wide = packs_of(settings, (0, 7), tmp_path)
    assert (list(whole.settings), whole.name) == (["whole", "good", "poor"], "base")
    assert (list(wide.settings), wide.name) == (["wide"], "student.segmentation_channels=16")
    options = [f"--config={place / 'tiny.py'}", "--config.train.steps=9"]
    found = whole.configs(options) | wide.configs(options)
    assert len(found) == 8
    for (setting, seed), config in found.items():
        expected = changed(base, settings[setting])
        expected.train.steps, expected.seed = 9, seed
        assert flatten(config) == flatten(expected)


def test_a_value_with_a_space_has_a_program_of_its_own():
    changes = {"student.checkpoint": "my file.pt", "loss.l1_weight": 1.0}
    assert parted(changes) == ({"student.checkpoint": "my file.pt"}, {"loss.l1_weight": 1.0})


def test_folders_are_told_apart_whatever_their_names_hold(tmp_path):
    long = {f"s{i}": {"teacher.checkpoint": f"{'x' * 90}/{i}"} for i in range(3)}
    slashed = {"a": {"data.root": "x/y"}, "b": {"data.root": "x_y"}}
    for settings in (long, slashed):
        names = [pack.name for pack in packs_of(settings, (0,), tmp_path)]
        assert len(set(names)) == len(settings) and all(
            len(n) < 120 and "/" not in n for n in names
        )


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("7,", (7,)), ("4,0", (4, 0))])
def test_seeds(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("base", ["demo.py", "mvtec.py", "own.py", "tiny"])
def test_every_study_that_ships_can_be_told_on_a_command_line(base, place, tmp_path):
    file = place / "tiny.py" if base == "tiny" else ROOT / "configs" / base
    config = load_config(file)
    names = ("components", "teacher", "losses", "student_init", "image_size", "pseudo", "optimiser",
             "batch_size")  # fmt: skip
    for name in names:
        _, settings = read_studies(f"{ABLATIONS}:{name}", config)
        assert len(settings) >= 3 or (base, name) == ("tiny", "image_size")
        for pack in packs_of(settings, (0, 1), tmp_path):
            for (setting, seed), member in pack.configs([f"--config={file}"]).items():
                expected = changed(config, settings[setting])
                expected.seed = seed
                assert flatten(member) == flatten(expected)


def test_a_setting_that_changes_nothing_here_is_left_out_and_said(place, capsys):
    """In the published setting masks are of all that is blended, as one setting would have it."""
    _, settings = read_studies(f"{ABLATIONS}:pseudo", load_config(ROOT / "configs/mvtec.py"))
    assert "mask_of_all" not in settings and "half_clean" not in settings
    assert "mask_of_all is left out, over this base it is base" in capsys.readouterr().err


def test_the_cost_of_a_run_is_its_share(place, tmp_path):
    config = load_config(place / "tiny.py")
    for name in config.data.categories:
        (tmp_path / name).mkdir()
        lines = [
            {"step": 10, "steps_per_second": 2.0, "teacher_passes": 0.5, "together": 1.0},
            {"step": 14, "steps_per_second": 4.0, "teacher_passes": 0.25, "together": 2.0},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text + '{"step": 20, "ste')
    # 10 steps in 5 s alone, 4 in a second that two shared; batches of 2.
    assert cost_of_run(tmp_path, config) == (2 * 5.5, 2 * (10 * 0.5 + 4 * 0.25) * 2, 2)


# --- the command ---


def test_a_study_is_made_once_and_compared(here, place, tmp_path, capsys):
    assert run(place, "two", tmp_path) == 0
    assert len(made(tmp_path)) == 2  # a job a pack
    said = capsys.readouterr()
    found = rows(tmp_path)
    assert {"whole (baseline)", "good", "poor", "wide"} <= found.keys()
    assert said.out.count("student.levels=2") == 1 and "| good" in said.out
    page = (tmp_path / "study/report.html").read_text()
    assert "<svg" in page and "loss.l1_weight=2" in page
    assert "whole" in (tmp_path / "study/table.csv").read_text()
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts["seeds"] == [0, 1] and facts["baseline"] == "whole"

    assert run(place, "two", tmp_path) == 0  # nothing is left to do
    assert len(made(tmp_path)) == 2
    (tmp_path / "base/poor_seed1/results/details.json").unlink()  # as if it had been killed there
    assert run(place, "two", tmp_path) == 0
    assert made(tmp_path)[2:] == [["poor_seed1"]]
    assert run(place, "two", tmp_path, "--config.evaluate.score_top_k=7") == 0
    assert len(made(tmp_path)) == 5  # all are evaluated anew


@pytest.mark.parametrize(
    ("study", "name", "why"),
    [("bad", "fails", "config.student: cannot be"), ("dead", "killed", "killed by signal 9")],
)
def test_a_trial_that_fails_keeps_no_other_from_the_end(
    place, tmp_path, study, name, why, capsys, request
):
    if name == "fails":  # the other is really killed
        request.getfixturevalue("here")
    assert run(place, study, tmp_path) == 2
    error = capsys.readouterr().err
    assert f"trials that are not there: {name}, seed 0, {name}, seed 1" in error.splitlines()[-1]
    assert f"{name} failed: {why}" in error
    table = (tmp_path / "study/table.md").read_text()
    found = rows(tmp_path)
    assert why in table and "done" in found["good"] and "done" in found["whole (baseline)"]
    before = len(made(tmp_path))
    assert run(place, study, tmp_path) == 2  # tried again, it alone
    assert made(tmp_path)[before:] == [[f"{name}_seed0", f"{name}_seed1"]]


def test_a_trial_that_diverged_is_told_and_not_tried_again(here, place, tmp_path, capsys):
    assert run(place, "nan", tmp_path) == 0
    assert "loss is nan" in (tmp_path / "study/table.md").read_text()
    assert len(made(tmp_path)) == 1
    assert run(place, "nan", tmp_path) == 0
    assert len(made(tmp_path)) == 1


def test_a_base_of_all_categories_names_those_that_are_there(here, place, tmp_path):
    """Else no run would count as done: what was evaluated names them, too."""
    assert run(place, "nan", tmp_path, "--config.data.categories=all") == 0
    folder = tmp_path / "base/whole_seed0"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "disc", "results", "ring",
    ]  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["data"]["categories"] == [
        "disc",
        "ring",
    ]


def test_a_setting_without_its_weights_is_skipped_and_said_before(here, place, tmp_path, capsys):
    assert run(place, "lost", tmp_path) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == "warning: vit_b is skipped: no.pth is not there"
    assert "no.pth is not there" in (tmp_path / "study/table.md").read_text()
    assert made(tmp_path) == [["whole_seed0", "whole_seed1"]]


def test_what_would_run_is_printed(place, tmp_path, capsys):
    assert run(place, "two", tmp_path, "--executor=print") == 0
    first, second = capsys.readouterr().out.splitlines()
    options = shlex.split(first)[2:]
    assert set(parse(["main", *options]).config.ensemble.settings) == {"whole", "good", "poor"}
    assert "--config.student.segmentation_channels=16" in shlex.split(second)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_is_left_and_what_a_shared_teacher_saves(place, tmp_path, capsys):
    assert run(place, "nan", tmp_path, "--dry_run") == 0
    said = capsys.readouterr().out.splitlines()
    (row,) = [line for line in said if line.startswith("| base")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["whole, diverges", "4", "0", "120"]  # 15 steps of 2 categories each
    together, alone = (
        [float(n) for n in re.findall(r"[0-9][0-9.e-]*", line)] for line in said[-2:]
    )
    assert together[0] == alone[0] == 120
    assert alone[1] == pytest.approx(2 * together[1], abs=1) and together[1] > 50
    # The student is most of the work of so small a teacher.
    assert together[2] < alone[2] < 2 * together[2]
    assert list(tmp_path.iterdir()) == []


def test_a_pack_at_work_is_known(tmp_path):
    assert not is_at_work(tmp_path / "a")
    (tmp_path / "a").mkdir()
    with only_here(tmp_path / "a/job.lock"):
        assert is_at_work(tmp_path / "a")
    assert not is_at_work(tmp_path / "a")


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("nothing", "a study is a dictionary of settings"),
        ("unknown", r"setting b: config.loss.l2_weight: there is no such key"),
        ("range", "setting b: .*b1=1.5: must be 0 or more"),
        ("name", "'a/b' is to be a folder's name"),
        ("other", "has no 'other', it has two, bad"),
    ],
)
def test_what_a_study_cannot_be(place, study, said):
    with pytest.raises(UserError, match=said):
        read_studies(f"{place / 'studies.py'}:{study}", load_config(place / "tiny.py"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor=cloud"], "--executor=cloud: must be one of local, slurm, print"),
        (["--executor=slurm"], "srun"),
        (["--slurm.partition=gpu"], "--slurm.partition: is for --executor=slurm"),
        (["--baseline=other"], "--baseline=other: the study has whole, good"),
        (["--parallel=0"], "--parallel=0: must be a whole number"),
        (["--config.ensemble.seeds=0,1"], "this command makes its own"),
        (["--config.loss.l2_weight=1"], "there is no key 'l2_weight'"),
        (["--speed=9"], "unknown argument '--speed=9'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(place, tmp_path, options, said, capsys):
    assert run(place, "two", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert made(tmp_path) == []


# --- a cluster ---

SBATCH = """
number=$(($(cat {place}/jobs 2>/dev/null || echo 40) + 1)); echo $number > {place}/jobs
cp "$1" {place}/$number.sh
export SLURM_JOB_ID=$number
(bash "$1"; echo > {place}/$number.over) > {place}/$number.out 2>&1 &
echo "Submitted batch job $number"
"""
SRUN = """
while [[ $1 == --* ]]; do [[ $1 == *=* || $1 == --unbuffered ]] || shift; shift; done
SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"
"""
SACCT = """
echo "JobID|State|NodeList"
for file in {place}/*.sh; do
  number=$(basename $file .sh)
  state=RUNNING; [[ -e {place}/$number.over ]] && state=COMPLETED
  echo "$number|$state|here"
done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's commands, which run a job at once."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        file = folder / name
        file.write_text(f"#!/usr/bin/env bash\n{textwrap.dedent(text).format(place=folder)}")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def test_packs_are_jobs_of_a_cluster(place, tmp_path, slurm):
    workdir = tmp_path / "run"
    options = ["--executor=slurm", "--slurm.partition=gpu", "--slurm.gpus_per_node=2"]
    assert run(place, "two", workdir, *options) == 0
    assert len(made(workdir)) == 2 and "done" in rows(workdir)["wide"]
    script = (slurm / "41.sh").read_text()
    assert "#SBATCH --partition=gpu" in script and "#SBATCH --gpus-per-node=2" in script
    assert "#SBATCH --time=1440" in script


def test_a_job_that_is_queued_is_not_queued_again(place, tmp_path, slurm, monkeypatch):
    workdir = tmp_path / "run"

    def stopped(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # once the jobs are queued
        patch.setattr("launch.study.work.time.sleep", stopped)
        assert run(place, "two", workdir, "--executor=slurm") == 130
    assert run(place, "two", workdir, "--executor=slurm") == 0
    assert len(made(workdir)) == 2
