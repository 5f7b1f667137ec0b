"""Where checkpoints of earlier releases have what today's have."""

from stlm_jax.weights.leaves import SEPARATOR

STUDENT_PARTS = ("params", "batch_stats")


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
