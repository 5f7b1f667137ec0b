"""In the place of `stlm_jax.main`: results without a training. A setting's name says how it ends.

`python stand_in_main.py OPTION…` takes the options of the command and leaves what it would.
"""

import json
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from study_runs import category, write_run  # noqa: E402

from stlm_jax.config import configurations  # noqa: E402
from stlm_jax.settings import parse  # noqa: E402

QUALITY = {"good": 1.5, "poor": 0.4}


def main(argv) -> int:
    settings = parse(argv)
    names = settings.config.data.categories
    with (settings.workdir.parent / "made.txt").open("a") as made:
        print(" ".join(configurations(settings.config)), file=made)
    if any("fails" in name for name in configurations(settings.config)):
        print("step 1 of 2\nerror: config.student: cannot be\n", file=sys.stderr)
        return 2
    for name, config in configurations(settings.config).items():
        folder, (setting, seed) = settings.workdir / name, name.rsplit("_seed", 1)
        if "killed" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "diverges" in name:
            for each in names:
                (folder / each).mkdir(parents=True, exist_ok=True)
                (folder / each / "diverged.json").write_text(json.dumps({"reason": "loss is nan"}))
            continue
        results = []
        for each in names:
            log(folder / each / "metrics.jsonl", config)
            results.append(category(each, QUALITY.get(setting, 1.0), int(seed), drawn=50))
        write_run(folder, results, config)
    if any("diverges" in name for name in configurations(settings.config)):
        print("error: trainings that diverged and were stopped", file=sys.stderr)
        return 2
    return 0


def log(path, config):
    """Two records of a training: 10 steps, then 5 that were made together with another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        {"step": 10, "steps_per_second": 2.0, "teacher_passes": 0.5, "together": 1.0},
        {
            "step": config.train.steps,
            "steps_per_second": 4.0,
            "teacher_passes": 0.2,
            "together": 2.0,
        },
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 1')


if __name__ == "__main__":
    sys.exit(main(sys.argv))
