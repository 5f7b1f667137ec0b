"""In the place of `launch.tuning.worker`: trains nothing, a trial's value is of its numbers alone.

A file `kill` beside the study says what is killed by SIGKILL, and after how many results of this
batch: `worker` or `search`; it is used up. A learning rate above 0.015 diverges.
"""

import json
import os
import pathlib
import signal
import sys

from launch.tuning.batches import read_batch
from launch.tuning.folders import RESULT
from stlm_jax.runtime.files import write_json

METRICS = ("aupro", "image_auroc", "pixel_auroc", "pixel_ap")


def value(overrides):
    rate = float(overrides.get("optimizer.learning_rate", 5e-4))
    return 1 / (1 + abs(rate - 4e-3) / 4e-3)


def killed(workdir, results):
    order = workdir / "kill"
    if not order.is_file():
        return
    who, count = order.read_text().split()
    if results == int(count):
        order.unlink()
        os.kill(os.getpid() if who == "worker" else os.getppid(), signal.SIGKILL)
        if who == "search":
            sys.exit(1)


def main(arguments):
    if arguments[1:] == ["--sizes"]:
        print(json.dumps({"steps": {"disc": 6}, "bytes": 10**6}))
        return
    folder = pathlib.Path(arguments[0])
    workdir = folder.parent.parent
    batch = read_batch(folder)
    with open(workdir / "trained.jsonl", "a") as file:
        file.write(json.dumps({"batch": folder.name, "settings": batch.settings}) + "\n")
    for number, (name, overrides) in enumerate(batch.settings.items()):
        killed(workdir, number)
        result = folder / name / RESULT
        if result.is_file():
            continue
        rate = float(overrides.get("optimizer.learning_rate", 5e-4))
        if rate > 0.015:
            write_json(result, {"diverged": "the loss became nan at step 3"})
        else:
            write_json(result, {"metrics": dict.fromkeys(METRICS, value(overrides))})
    killed(workdir, len(batch.settings))


if __name__ == "__main__":
    main(sys.argv[1:])
