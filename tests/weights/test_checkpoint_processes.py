"""Checkpoints that processes of one run write, each its own, without waiting for each other."""

import numpy as np
from other_processes import flags, free_port, in_two_processes

from stlm_jax.weights.checkpoint import Checkpoints

STUDENT = {"params": {"w": np.arange(12.0, dtype=np.float32).reshape(3, 4)}, "batch_stats": {}}
TRAINING = {"step": np.int32(0), "key": np.array([1, 2], np.uint32), "none": {}}

SAVE = """
import sys
import jax, numpy as np
from stlm_jax.runtime.hosts import join, parse_hosts
from stlm_jax.weights.checkpoint import Checkpoints

folder, *given = sys.argv[1:]
join(parse_hosts(*(text.split("=")[1] for text in given)))
own = jax.process_index()
w = np.arange(12.0, dtype=np.float32).reshape(3, 4)
for start in range(2):
    with Checkpoints(f"{folder}/{own}", keep=2) as checkpoints:
        for step in range(10 * own + 2 * start, 10 * own + 2 * start + 1 + own):
            training = dict(step=np.int32(step), key=np.array([1, 2], np.uint32), none={})
            student = dict(params=dict(w=w + step), batch_stats={})
            checkpoints.save(step, student, training, [step])
            checkpoints.wait()
        # What is read is what was written, by this process and by one that is alone.
        restored = checkpoints.restore(student, training)
        assert restored.step == step and restored.data == [step]
        assert np.array_equal(restored.student["params"]["w"], w + step)
print(own, "saved")
"""


def test_each_process_writes_and_reads_its_own(tmp_path):
    port = free_port()
    ended = in_two_processes(lambda number: ["-c", SAVE, tmp_path, *flags(port, number)])
    assert [(status, out) for status, out, _ in ended] == [(0, "0 saved\n"), (0, "1 saved\n")], (
        ended
    )
    for own, steps in ((0, [0, 2]), (1, [12, 13])):
        with Checkpoints(tmp_path / str(own), read_only=True) as checkpoints:
            assert checkpoints.steps() == steps
            restored = checkpoints.restore(STUDENT, TRAINING)
        assert restored.step == restored.training["step"] == steps[-1]
        np.testing.assert_array_equal(
            restored.student["params"]["w"], STUDENT["params"]["w"] + steps[-1]
        )
        np.testing.assert_array_equal(restored.training["key"], TRAINING["key"])
