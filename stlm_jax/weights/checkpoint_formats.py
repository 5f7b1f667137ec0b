"""Where checkpoints of earlier releases have what today's have."""

import numpy as np

from stlm_jax.weights.leaves import SEPARATOR

STUDENT_PARTS = ("params", "batch_stats")

# What of the training came later; before, all of the model took part.
_LATER = {
    f"hyper/student/{name}": np.bool_(True)
    for name in ("plain", "denoising", "level1", "level2", "fa")
}


def paths_of_format_1(student: bool, saved: dict, expected: dict) -> dict[str, str]:
    """Which leaves of the one item of format 1 an item of today holds, and their paths today.

    Args:
        student: whether it is the student's item, not that of the rest.
        saved: by path, of the item of format 1.
        expected: by path, of today's.
    """
    of_student = {path for path in saved if path.split(SEPARATOR)[0] in STUDENT_PARTS}
    if student:
        return {path: path for path in of_student}
    today = {}
    for path in expected:
        collection, *rest = path.split(SEPARATOR)
        if collection == "hyper":  # hyper/rotation/degrees was hyper/rotation_degrees, …
            today[f"hyper/{'_'.join(rest)}"] = path
            today[f"hyper/{rest[-1]}"] = path  # … and hyper/loss/l1_weight hyper/l1_weight
    return {path: today.get(path, path) for path in saved if path not in of_student}


def come_later(saved: dict, expected: dict) -> dict[str, np.ndarray]:
    """By path, what is expected of a training and was not saved by a release that had no such."""
    return {
        path: np.asarray(value)
        for path, value in _LATER.items()
        if path in expected and path not in saved
    }
