"""How processes of one run find each other."""

import os
import pathlib
import re
import socket

import jax
import pytest
from other_processes import flags, free_port, in_two_processes

from stlm_jax.runtime import hosts
from stlm_jax.runtime.agreement import Vote
from stlm_jax.runtime.errors import UserError
from stlm_jax.settings import parse

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEMO = f"--config={REPOSITORY / 'configs/demo.py'}"
JOIN = """
import sys
from stlm_jax.runtime.process import prepare
from stlm_jax.settings import parse
settings = parse(["main", *sys.argv[1:]])
prepare("default", None, settings.hosts)
import jax
from stlm_jax.runtime.gather import gather
print(gather(jax.process_index()), len(jax.devices()))
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--processes=2"], r"--processes=2: --coordinator and --process must be given, too"),
        (["--coordinator=a:1", "--process=0"], r"--coordinator=a:1: --processes must be given"),
        (["--coordinator=a", "--processes=2", "--process=0"], r"=a: must be HOST:PORT"),
        (["--coordinator=a:99999", "--processes=2", "--process=0"], r"=a:99999: must be HOST:PORT"),
        (["--coordinator=:7", "--processes=2", "--process=0"], r"=:7: must be HOST:PORT"),
        (["--coordinator=a:1", "--processes=0", "--process=0"], r"--processes=0: must be"),
        (["--coordinator=a:1", "--processes=two", "--process=0"], r"--processes=two: must be"),
        (["--coordinator=a:1", "--processes=2", "--process=2"], r"=2: counts from 0 .* in 0\.\.1"),
        (["--coordinator=a:1", "--processes=2", "--process=-1"], r"--process=-1: counts from 0"),
        (["--coordinator", "--processes=2", "--process=0"], r"--coordinator: the value is missing"),
        (["--process=0", "--process=1"], r"--process is given 2 times"),
        (["--processs=0"], r"unknown option --processs\. Did you mean --processes\?"),
    ],
)
def test_wrong_flags_are_named(given, said):
    with pytest.raises(UserError) as error:
        parse(["main", DEMO, *given])
    assert re.search(said, str(error.value)) and "\n" not in str(error.value)


def test_flags_are_read_and_shown(capsys):
    given = parse(["main", DEMO, "--coordinator=[::1]:80", "--processes=2", "--process=1"])
    assert given.hosts == ("[::1]:80", 2, 1)
    assert parse(["main", DEMO]).hosts == hosts.Hosts()
    parse(["main", "--help"])
    assert "--coordinator=HOST:PORT --processes=N --process=I" in capsys.readouterr().out


@pytest.mark.parametrize("alone", [hosts.Hosts(), hosts.Hosts("localhost:1", 1, 0)])
def test_one_process_joins_nothing(alone, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    for name, value in slurm(0, 1, 7).items():  # a job of one task
        monkeypatch.setenv(name, value)
    # A pod that is not part of an indexed job, in which jax would ask Kubernetes for the job.
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    hosts.join(alone)


def test_a_coordinator_that_cannot_be_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 0.1)
    monkeypatch.setattr(hosts, "NAME_PATIENCE", 0.1)
    port = free_port()
    for address in (f"localhost:{port}", f"no.such.host.invalid:{port}"):
        with pytest.raises(UserError) as error:
            hosts.join(hosts.Hosts(address, 2, 1))
        assert re.match(rf"--coordinator={address}: .*: process 1 finds no", str(error.value))
    with socket.create_server(("", port)), pytest.raises(UserError, match="give another port"):
        hosts.join(hosts.Hosts(f"localhost:{port}", 2, 0))


def slurm(number, processes, job):
    """The environment of a task of `srun`."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(processes),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": "0",
    }


def test_processes_find_each_other_by_flags():
    port = free_port()
    ended = in_two_processes(lambda number: ["-c", JOIN, DEMO, *flags(port, number)])
    for status, printed, errors in ended:
        assert status == 0 and printed.endswith(f"[0, 1] {2 * local_devices()}\n"), errors


def test_processes_find_each_other_in_a_cluster():
    job = free_port(61440) - 61440  # of which jax makes the port
    ended = in_two_processes(
        lambda number: ["-c", JOIN, DEMO], lambda number: slurm(number, 2, job)
    )
    for status, printed, errors in ended:
        assert status == 0 and printed.endswith(f"[0, 1] {2 * local_devices()}\n"), errors


def local_devices():
    """How many devices a process of these tests has."""
    match = re.search(r"device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    return int(match[1]) if match else 1


VOTE = """
import sys, time
import jax
from stlm_jax.runtime.agreement import Vote
from stlm_jax.runtime.process import prepare
from stlm_jax.settings import parse
settings = parse(["main", *sys.argv[1:]])
prepare("default", None, settings.hosts)
vote, seen = Vote(), []
for step in range(8):
    # The second process wants it at step 3, the first never, which is the slower one.
    time.sleep(0.05 * (1 - jax.process_index()))
    with jax.transfer_guard("disallow"):  # as in the loop
        seen.append(vote.any(jax.process_index() == 1 and step == 3))
print(seen.index(True), sum(seen))
"""


def test_what_one_process_wants_all_know_at_the_same_step():
    port = free_port()
    ended = in_two_processes(lambda number: ["-c", VOTE, DEMO, *flags(port, number)])
    for status, printed, errors in ended:
        assert status == 0 and printed.endswith("4 1\n"), errors


FIRST = """
import sys
import jax
from stlm_jax.runtime.agreement import by_first
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.process import prepare
from stlm_jax.runtime.progress import note, say, track
from stlm_jax.settings import parse
settings = parse(["main", *sys.argv[1:]])
prepare("default", None, settings.hosts)
def refuse():
    raise UserError("no")
print(by_first(lambda: [jax.process_index()]))
try:
    by_first(refuse)
except UserError as error:
    print(error)
note("a note")
say("said")
list(track([1], "tracked"))
"""


def test_the_first_process_works_and_speaks_for_all():
    port = free_port()
    ended = in_two_processes(lambda number: ["-c", FIRST, DEMO, *flags(port, number)])
    assert [status for status, *_ in ended] == [0, 0], ended
    (_, first, notes), (_, second, other) = ended
    assert first.endswith("[0]\nno\nsaid\n") and second.endswith("None\nno\n")
    assert "a note" in notes and "tracked" in notes and other == ""


def test_one_process_knows_at_once():
    vote = Vote()
    assert [vote.any(wanted) for wanted in (False, True, False)] == [False, True, False]


def test_what_is_done_by_one_process_is_refused_in_several(monkeypatch):
    hosts.require_one("prediction")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="prediction is done by one process and there are 2"):
        hosts.require_one("prediction")
