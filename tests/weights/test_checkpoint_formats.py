"""Checkpoints of earlier releases are read, later ones named; prediction reads one item."""

import json
import shutil
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from stlm_jax.runtime.errors import UserError
from stlm_jax.weights.checkpoint import Checkpoints

STUDENT = {
    "params": {"encoder": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}},
    "batch_stats": {"encoder": {"mean": np.full(4, 0.5, np.float32)}},
}
TRAINING = {
    "step": np.int32(7),
    "opt_state": {"mu": {"kernel": np.ones((3, 4), np.float32)}},
    "hyper": {
        "loss": {"l1_weight": np.float32(2), "focal_gamma": np.float32(4)},
        "rotation": {"degrees": np.float32(5), "right_angles": np.float32(1)},
        "optimizer": {"decay_steps": np.float32(9)},
    },
    "key": np.array([1, 2], np.uint32),
}
# As the last release wrote them: one item, hyperparameters side by side.
FLAT_HYPER = {
    "l1_weight": np.float32(2),
    "focal_gamma": np.float32(4),
    "rotation_degrees": np.float32(5),
    "rotation_right_angles": np.float32(1),
    "decay_steps": np.float32(9),
}


def table(tree):
    return {
        path: [list(x.shape), x.dtype.name, zlib.crc32(np.ascontiguousarray(x).tobytes())]
        for path, x in traverse_util.flatten_dict(tree, sep="/").items()
    }


def write_format_1(folder, step=7):
    state = {**STUDENT, **TRAINING, "hyper": FLAT_HYPER}
    meta = {"step": step, "data": {"next": 3}, "leaves": table(state)}
    with ocp.CheckpointManager(folder.absolute()) as manager:
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(np.asarray, state)),
            meta=ocp.args.JsonSave(meta),
        )
        manager.save(step, args=arguments, force=True)
        manager.wait_until_finished()


def write_format_2(folder, step=7):
    """Two items, and every array by itself."""
    leaves = {"student": table(STUDENT), "training": table(TRAINING)}
    meta = {"format": 2, "step": step, "data": {"next": 3}, "leaves": leaves}
    with ocp.CheckpointManager(folder.absolute()) as manager:
        arguments = ocp.args.Composite(
            student=ocp.args.StandardSave(jax.tree.map(np.asarray, STUDENT)),
            training=ocp.args.StandardSave(jax.tree.map(np.asarray, TRAINING)),
            meta=ocp.args.JsonSave(meta),
        )
        manager.save(step, args=arguments, force=True)
        manager.wait_until_finished()


EARLIER = pytest.mark.parametrize(
    ("write", "item"), [(write_format_1, "state"), (write_format_2, "student")]
)


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    return jax.tree.structure(actual) == jax.tree.structure(expected)


@EARLIER
def test_a_checkpoint_of_an_earlier_release_is_read(tmp_path, write, item):
    write(tmp_path / "old")
    with Checkpoints(tmp_path / "old", read_only=True) as checkpoints:
        whole = checkpoints.restore(STUDENT, TRAINING)
        alone = checkpoints.restore(STUDENT)
    assert (whole.step, whole.data) == (7, {"next": 3})
    assert same(whole.student, STUDENT) and same(whole.training, TRAINING)
    assert same(alone.student, STUDENT) and alone.training is None
    with Checkpoints(tmp_path / "old") as checkpoints:  # a training goes on with it
        checkpoints.save(8, STUDENT, TRAINING, {"next": 4})
        again = checkpoints.restore(STUDENT, TRAINING)
    assert again.step == 8 and same(again.training, TRAINING)


@EARLIER
def test_a_damaged_one_of_an_earlier_release_is_told(tmp_path, capsys, write, item):
    write(tmp_path / "old")
    files = [path for path in (tmp_path / "old/7" / item).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-7])
    with Checkpoints(tmp_path / "old", read_only=True) as checkpoints:
        with pytest.raises(UserError, match="no checkpoint can be read"):
            checkpoints.restore(STUDENT)


@pytest.mark.parametrize("number", [0, 4, 99])
def test_a_format_that_is_not_known_is_named(tmp_path, number):
    with Checkpoints(tmp_path / "new") as checkpoints:
        checkpoints.save(7, STUDENT, TRAINING, None)
        checkpoints.wait()
        (path,) = (tmp_path / "new/7/meta").rglob("metadata")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
        with pytest.raises(UserError, match=rf"new/7: a checkpoint of format {number}, .*1 to 3"):
            checkpoints.restore(STUDENT)


def test_prediction_reads_the_students_item_alone(tmp_path):
    with Checkpoints(tmp_path / "a") as checkpoints:
        checkpoints.save(7, STUDENT, TRAINING, None)
    shutil.rmtree(tmp_path / "a/7/training")
    with Checkpoints(tmp_path / "a", read_only=True) as checkpoints:
        assert same(checkpoints.restore(STUDENT).student, STUDENT)


def test_another_optimiser_leaves_a_trained_model_readable(tmp_path):
    other = TRAINING | {"opt_state": {"nu": {"kernel": np.ones(3, np.float32)}}}
    with Checkpoints(tmp_path / "a") as checkpoints:
        checkpoints.save(7, STUDENT, other, None)
        assert same(checkpoints.restore(STUDENT).student, STUDENT)
        with pytest.raises(UserError, match=r"of another model: opt_state/mu/kernel is absent"):
            checkpoints.restore(STUDENT, TRAINING)


def test_what_came_later_is_what_it_was_before(tmp_path):
    """Releases that trained the whole model only saved nothing of its parts."""
    now = TRAINING | {"hyper": TRAINING["hyper"] | {"student": {"fa": np.bool_(False)}}}
    with Checkpoints(tmp_path / "a") as checkpoints:
        checkpoints.save(7, STUDENT, TRAINING, None)
        restored = checkpoints.restore(STUDENT, now)
        assert restored.training["hyper"]["student"]["fa"].item() is True
        checkpoints.save(8, STUDENT, now, None)
        assert checkpoints.restore(STUDENT, now).training["hyper"]["student"]["fa"].item() is False
        student = {"fa": np.bool_(False), "more": np.bool_(False)}
        unknown = TRAINING | {"hyper": TRAINING["hyper"] | {"student": student}}
        with pytest.raises(UserError, match="hyper/student/more is absent in the checkpoint"):
            checkpoints.restore(STUDENT, unknown)


def test_arrays_of_all_kinds_and_sizes_are_packed(tmp_path, monkeypatch):
    monkeypatch.setattr("stlm_jax.weights.leaves._PIECE", 50)  # bytes: arrays lie across pieces
    rng = np.random.default_rng(0)
    kinds = (np.bool_, np.int8, "bfloat16", np.float32, np.float64, np.uint32)
    student = {
        f"{name}{length}": rng.integers(0, 2, (length, 3)).astype(np.dtype(name))
        for name in map(lambda kind: np.dtype(kind).name, kinds)
        for length in (0, 1, 7)
    } | {"scalar": np.float16(3)}
    with Checkpoints(tmp_path / "a") as checkpoints:
        checkpoints.save(7, student, TRAINING, None)
        restored = checkpoints.restore(student, TRAINING)
    assert same(restored.student, student) and same(restored.training, TRAINING)
    for name, array in restored.student.items():
        assert array.dtype == student[name].dtype and array.shape == student[name].shape
        assert array.flags.aligned
