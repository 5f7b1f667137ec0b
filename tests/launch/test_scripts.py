"""Scripts that start trainings elsewhere: what they would run, and what they do run."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = ("tpu_vm.sh", "xpk.sh", "slurm.sbatch")
PLACES = {
    "tpu_vm.sh": ["lab", "us-west4-a", "v5litepod-16", "v2-alpha-tpuv5-lite"],
    "xpk.sh": ["lab", "mvtec-1", "v5litepod-16"],
    "slurm.sbatch": [],
}
OPTIONS = ["--config=configs/mvtec.py", "--config.ensemble.settings.low=loss.a=1 loss.b=2"]
TASK = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())


def check(*arguments, text=None):
    tool = pathlib.Path(sys.executable).with_name("shellcheck")
    ended = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
    check(FOLDER / script)


@pytest.mark.parametrize("part", ["setup", "run"])
def test_shellcheck_has_nothing_to_say_of_the_task(part):
    check("--shell=bash", "--exclude=SC2154", "-", text=TASK[part])


@pytest.fixture
def tools(tmp_path):
    """Makes programs that are not here; each notes what it was called with."""
    (tmp_path / "bin").mkdir()

    def make(name, body="", folder="bin"):
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True, parents=True)
        note = f'{{ printf "%s\\037" {name} "$@"; printf "\\036"; }} >> "{tmp_path}/called"'
        file.write_text(f"#!/usr/bin/env bash\n{note}\n{body}\n")
        file.chmod(0o755)
        return file

    return make


def started(tmp_path, script, *arguments, **variables):
    return subprocess.run(
        ["bash", str(FOLDER / script), *arguments],
        cwd=FOLDER.parent,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
    )


def called(tmp_path):
    file = tmp_path / "called"
    records = file.read_text().split("\036")[:-1] if file.exists() else []
    return [record.split("\037")[:-1] for record in records]


def command_in(words):
    """What a shell elsewhere would run last, with its options."""
    return shlex.split(words[-1].splitlines()[-1])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_the_command_and_runs_nothing(tmp_path, tools, script):
    for name in ("gcloud", "xpk", "srun", "scontrol"):
        tools(name)
    ended = started(tmp_path, script, "--dry-run", *PLACES[script], *OPTIONS)
    assert ended.returncode == 0 and called(tmp_path) == []
    assert "-m stlm_jax.main --config=configs/mvtec.py" in ended.stdout
    assert "loss.a=1" in ended.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("arguments", [[], ["lab"], ["--dry-run", "lab", "zone"]])
def test_what_is_missing_gets_the_usage(tmp_path, tools, script, arguments):
    for name in ("gcloud", "xpk", "srun"):
        tools(name)
    ended = started(tmp_path, script, *arguments)
    assert ended.returncode == 2 and f"launch/{script}" in ended.stderr
    assert called(tmp_path) == []


def test_a_tpu_that_is_ready_is_used(tmp_path, tools):
    tools("gcloud", 'case "$*" in *describe*) echo READY;; esac')
    tools("git", 'touch "$(sed "s/.*--output=//; s/ .*//" <<< "$*")"')
    ended = started(tmp_path, "tpu_vm.sh", *PLACES["tpu_vm.sh"], *OPTIONS)
    assert ended.returncode == 0, ended.stderr
    calls = called(tmp_path)
    assert [next(w for w in call if w in VERBS) for call in calls] == [
        "describe", "archive", "scp", "ssh",
    ]  # fmt: skip
    assert {"--zone=us-west4-a", "--worker=all"} <= set(calls[-1])
    python = ["exec", ".venv/bin/python", "-m", "stlm_jax.main"]
    assert command_in(calls[-1]) == [*python, *OPTIONS]


VERBS = ("describe", "delete", "create", "archive", "scp", "ssh")


def test_a_tpu_that_was_taken_away_is_asked_for_again(tmp_path, tools):
    state = 'case "$*" in *describe*) test -e "$0.made" && echo READY || echo PREEMPTED;; '
    tools("gcloud", f'{state} *create*) touch "$0.made";; esac')
    ended = started(tmp_path, "tpu_vm.sh", *PLACES["tpu_vm.sh"], *OPTIONS, SPOT="1")
    assert ended.returncode == 0, ended.stderr
    calls = [call for call in called(tmp_path) if call[0] == "gcloud"]
    verbs = [next(word for word in call if word in VERBS) for call in calls]
    assert verbs == ["describe", "delete", "create", "describe", "scp", "ssh"]
    assert {"--spot", "--node-id=lab", "--accelerator-type=v5litepod-16"} <= set(calls[2])


def test_xpk_is_given_the_command(tmp_path, tools):
    tools("xpk")
    variables = {"SLICES": "2", "XPK_OPTIONS": "--spot --zone=us-west4-a"}
    ended = started(tmp_path, "xpk.sh", *PLACES["xpk.sh"], *OPTIONS, **variables)
    assert ended.returncode == 0, ended.stderr
    (call,) = called(tmp_path)
    assert {"--cluster=lab", "--workload=mvtec-1", "--num-slices=2", "--spot"} <= set(call)
    assert command_in(call) == ["exec", "python", "-m", "stlm_jax.main", *OPTIONS]


@pytest.mark.parametrize(("status", "again"), [(0, False), (143, True), (2, False)])
def test_a_job_that_was_stopped_and_saved_is_queued_again(tmp_path, tools, status, again):
    tools("srun", 'shift; "$@"')
    tools("scontrol")
    python = tools("python", f"exit {status}", "own")
    variables = {"PYTHON": str(python), "SLURM_JOB_ID": "7"}
    ended = started(tmp_path, "slurm.sbatch", *OPTIONS, **variables)
    assert ended.returncode == status
    calls = called(tmp_path)
    assert calls[1] == ["python", "-m", "stlm_jax.main", *OPTIONS]
    assert (["scontrol", "requeue", "7"] in calls) == again


# Of https://docs.skypilot.co/en/latest/reference/yaml-spec.html
KEYS = {"name", "workdir", "num_nodes", "resources", "envs", "setup", "run"}
RESOURCES = {"accelerators", "accelerator_args", "use_spot", "job_recovery"}


def test_the_task_has_the_keys_that_skypilot_knows():
    assert TASK.keys() == KEYS and TASK["resources"].keys() == RESOURCES
    assert isinstance(TASK["num_nodes"], int) and TASK["resources"]["use_spot"] is True
    assert all(isinstance(value, str) for value in TASK["envs"].values())


@pytest.mark.parametrize("nodes", [1, 2])
def test_nodes_of_a_task_find_each_other(tmp_path, tools, nodes):
    tools("python", folder=".venv/bin")
    hosts = ["--coordinator=10.0.0.1:8476", "--processes=2", "--process=1"] if nodes > 1 else []
    subprocess.run(
        ["bash", "-c", TASK["run"]],
        cwd=tmp_path,
        env={**os.environ, "SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_RANK": "1",
             "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "OPTIONS": shlex.join(OPTIONS)},
        check=True,
    )  # fmt: skip
    assert called(tmp_path) == [["python", "-m", "stlm_jax.main", *OPTIONS, *hosts]]
