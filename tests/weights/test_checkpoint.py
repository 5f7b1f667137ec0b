"""Checkpoints: strictness, damage, full disks, kills. No model is needed for any of it."""

import errno
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.checkpoint import Checkpoints

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    key: jax.Array


def make_state(value: float, width: int = 8) -> State:
    rng = np.random.default_rng(int(value))
    params = {
        "a": {"kernel": jnp.asarray(rng.standard_normal((64, width)), jnp.float32)},
        "b": {"scale": jnp.full((3,), value, jnp.bfloat16), "empty": {}},
    }
    labels = {"a": {"kernel": "adam"}, "b": {"scale": "frozen", "empty": {}}}
    optimizer = optax.multi_transform(
        {
            "adam": optax.inject_hyperparams(optax.adam)(learning_rate=value),
            "frozen": optax.set_to_zero(),
        },
        labels,
    )
    key = jax.random.key_data(jax.random.key(int(value)))
    return State(jnp.asarray(int(value), jnp.int32), params, optimizer.init(params), key)


def save(checkpoints, step, state, data=None):
    checkpoints.save(step, *split(state), data)


def split(state):
    """The items of a checkpoint: the student, and all else."""
    rest = {"step": state.step, "opt_state": state.opt_state, "key": state.key}
    return {"params": state.params}, rest


def restore(checkpoints, template, **options):
    return checkpoints.restore(*split(template), **options)


def assert_same(restored, expected) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), strict=True)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 1 and 2."""
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        save(checkpoints, 1, make_state(1), {"next": 10})
        save(checkpoints, 2, make_state(2), {"next": 20})
    return tmp_path / "checkpoints"


def test_restores_exactly_what_was_saved(folder):
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = restore(checkpoints, jax.eval_shape(lambda: make_state(9)))
    assert (restored.step, restored.data) == (2, {"next": 20})
    assert_same((restored.student, restored.training), split(make_state(2)))


def test_keeps_the_newest(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        save(checkpoints, 5, make_state(5), None)
        assert checkpoints.steps() == [2, 5]


def test_no_folder_is_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "absent", read_only=True) as checkpoints:
        assert restore(checkpoints, make_state(1)) is None
    assert not (tmp_path / "absent").exists()


def other_shape(state: State) -> State:
    return make_state(2, width=9)


def other_dtype(state: State) -> State:
    return state.replace(step=state.step.astype(jnp.uint32))


def more_parameters(state: State) -> State:
    return state.replace(params={**state.params, "c": jnp.zeros(2)})


def fewer_parameters(state: State) -> State:
    return state.replace(params={"a": state.params["a"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_shape, r"params/a/kernel is float32\[64, 8\] in the checkpoint, float32\[64, 9\]"),
        (other_dtype, r"step is int32\[\] in the checkpoint, uint32\[\]"),
        (more_parameters, r"params/c is absent in the checkpoint, float32\[2\]"),
        (fewer_parameters, r"params/b/scale is bfloat16\[3\] in the checkpoint, absent"),
    ],
)
def test_another_model_is_refused_by_the_first_path(folder, change, message):
    with Checkpoints(folder) as checkpoints:
        with pytest.raises(UserError, match="checkpoint of another model: .*" + message):
            restore(checkpoints, change(make_state(2)))
        assert restore(checkpoints, make_state(2)).step == 2


def largest_file(folder: pathlib.Path) -> pathlib.Path:
    files = (path for path in folder.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(checkpoint: pathlib.Path) -> None:
    path = largest_file(checkpoint / "student")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(checkpoint: pathlib.Path) -> None:
    path = largest_file(checkpoint / "student")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_state(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint / "student")


def lose_table(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint / "meta")


def lose_everything(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lose_state, lose_table, lose_everything])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder, damage, capsys):
    damage(folder / "2")
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = restore(checkpoints, make_state(2))
    assert restored.step == 1
    assert_same((restored.student, restored.training), split(make_state(1)))
    if damage is not lose_everything:  # Orbax itself passes over an empty folder
        assert f"{folder / '2'}: damaged, ignored" in capsys.readouterr().err


def test_the_step_of_a_discarded_checkpoint_can_be_saved_again(folder):
    cut_short(folder / "2")
    with Checkpoints(folder) as checkpoints:
        assert restore(checkpoints, make_state(2), discard_damaged=True).step == 1
        save(checkpoints, 2, make_state(2), None)
        restored = restore(checkpoints, make_state(2))
        assert_same((restored.student, restored.training), split(make_state(2)))


def test_all_damaged_is_an_error_and_nothing_is_deleted(folder):
    for step in ("1", "2"):
        cut_short(folder / step)
    with Checkpoints(folder) as checkpoints:
        with pytest.raises(UserError, match=r"no checkpoint can be read \(steps \[2, 1\]\)"):
            restore(checkpoints, make_state(2), discard_damaged=True)
    assert (folder / "1").is_dir() and (folder / "2").is_dir()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [errno 28]"),
    ],
    ids=["from the system", "from the array store"],
)
def test_a_full_disk_leaves_the_last_checkpoint(folder, error, monkeypatch):
    import orbax.checkpoint as ocp

    def refuse(*_, **__):
        raise error

    with Checkpoints(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(ocp.CheckpointManager, "save", refuse)
            save(checkpoints, 3, make_state(3), None)
            with pytest.raises(UserError, match="3 could not be written: no space left .* step 2"):
                checkpoints.wait()
        assert restore(checkpoints, make_state(2)).step == 2


@pytest.mark.parametrize("begun", ["folder only", "nearly whole"])
def test_a_save_that_did_not_finish_does_not_count(folder, begun):
    leftover = folder / "3.orbax-checkpoint-tmp"
    if begun == "nearly whole":
        shutil.copytree(folder / "2", leftover)
    else:
        leftover.mkdir()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 2
        save(checkpoints, 3, make_state(3), None)
        restored = restore(checkpoints, make_state(2))
        assert_same((restored.student, restored.training), split(make_state(3)))
    assert not leftover.exists()


SAVE_FOREVER = """
import sys
import numpy as np
from stlm_jax.weights.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 1000000):
    student, training = {"w": np.full((512, 1024), step, np.int32)}, {"n": np.int32(step)}
    checkpoints.save(step, student, training, {"step": step})
    print(step - 1, flush=True)  # is on disk, as its writing was waited for
"""


def test_kill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    last = 0
    for delay in (0.0, 0.013, 0.05):  # seconds after a save: begun, writing, renaming
        shutil.rmtree(folder, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for _ in range(3):
            last = int(process.stdout.readline())
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(
                {"w": np.empty((512, 1024), np.int32)}, {"n": np.int32(0)}
            )
        assert restored.step >= last and restored.data == {"step": restored.step}
        np.testing.assert_array_equal(restored.student["w"], restored.step)
        assert restored.training["n"] == restored.step
