"""Searches for settings without looking at test images.

`python -m launch.search --space=configs/spaces/optimiser.py --base=configs/demo.py --trials=64`;
`--help` lists all options.
"""

import contextlib
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from launch.tuning.options import Options, parse
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.runtime.progress import note, say

_STOPPED = "stopped; run the same command again to go on"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the program's name first) and returns its exit status."""
    arguments = list(sys.argv if argv is None else argv)
    return exit_status(lambda: _run(arguments), _STOPPED)


def _run(argv: Sequence[str]) -> None:
    options = parse(argv)
    if options is None:
        return
    # Here, not above: a mistyped flag is answered without what these import.
    from launch.tuning import ending, folders
    from launch.tuning.space import check_space, default_point, load_space
    from launch.tuning.study import Study

    space = load_space(options.space)
    keys = check_space(space, options.config)
    default = default_point(space, options.config)
    workdir = options.workdir
    with folders.in_turn(workdir / folders.STUDY / folders.ASKING, "asks for trials"):
        _check_data(options)
        folders.settle(options, space)
        _draw(options)
        study = Study(workdir / folders.STUDY, space, options.seed)
        study.begin(default)
    _announce(options, study, keys, default)
    while True:
        with contextlib.ExitStack() as stack:
            if not _next(options, study, default is None, stack):
                break
    if study.running():
        note(
            f"{len(study.running())} trials are left to other hosts' searches: start the same "
            "command again, here or there, when they have ended; --take_over=HOST goes on with "
            "those of one that is gone"
        )
        return
    with folders.in_turn(workdir / folders.STUDY / folders.ENDING, "writes the final table"):
        ending.write_trials(study, workdir, options.metric)
        say(ending.conclude(study, workdir, options.metric, default is not None).rstrip())


def _next(options: Options, study: Any, with_default: bool, stack: contextlib.ExitStack) -> bool:
    """Trains a batch and tells its trials; false where there is none for this process."""
    from launch.tuning import batches, ending, folders

    workdir = options.workdir
    with folders.in_turn(workdir / folders.STUDY / folders.ASKING, "asks for trials"):
        batch = batches.next_batch(
            study, workdir, options.trials, options.batch, with_default, options.take_over, stack
        )
    if batch is None:
        return False
    if batches.tell(study, batch, options.metric):
        names = ", ".join(map(str, batch.numbers.values()))
        note(f"trials {names} of {options.trials}, in {batch.folder}")
        try:
            batches.train(batch)
        finally:
            missing = batches.tell(study, batch, options.metric)
        if missing:
            raise UserError(f"{batch.folder}: {', '.join(missing)} came to no result: start again")
    ending.write_trials(study, workdir, options.metric)
    _say_best(options, study)
    return True


def _check_data(options: Options) -> None:
    """Makes the data ready, and refuses a category that has nothing to measure on."""
    from stlm_jax.data import dataset
    from stlm_jax.evaluation.pseudo_validation import good_images

    dataset.prepare(options.config)
    for category in options.config.data.categories:
        good_images(options.config, category)


def _draw(options: Options) -> None:
    """Draws what is optimised, unless it is there."""
    from launch.tuning.folders import PICTURE
    from launch.tuning.picture import draw_objective

    path = options.workdir / PICTURE
    if not path.is_file():
        draw_objective(options.config, path)
        note(f"{path}: look at it, it shows what the search optimises")


def _announce(options: Options, study: Any, keys: set[str], default: Any) -> None:
    """Says what is going to be done."""
    from launch.tuning.batches import sizes
    from launch.tuning.space import samples_differ

    done, there = len(study.trials()) - len(study.running()), len(study.trials())
    if there > options.trials:
        note(f"warning: --trials={options.trials}: there are {there} trials already, none is added")
    left = max(there, options.trials) - done
    if not left:
        return
    size = sizes(options.workdir)
    steps = sum(size["steps"].values())
    runs = left + (default is None and not done)
    note(
        f"{options.trials} trials of {', '.join(sorted(keys))}; {left} are left, in "
        f"{math.ceil(left / options.batch)} batches of up to {options.batch}: {runs * steps:,} "
        f"steps ({json.dumps(size['steps'])} each), "
        f"up to {runs * size['bytes'] / 1e9:.1f} GB of disk"
    )
    note(
        f"default: trial 0; objective: {options.metric} of pseudo_validation"
        if default is not None
        else "default: a run beside the trials, as it lies outside the space or its parameters are "
        "not named as the keys"
    )
    if samples_differ(keys):
        note(
            "warning: the space changes pseudo or data.rotation: trials then see samples of their "
            "own and share no pass of the teacher"
        )


def _say_best(options: Options, study: Any) -> None:
    best, running = study.best(), len(study.running())
    done = len(study.trials()) - running
    if best is None:
        note(f"{done} of {options.trials} trials done, all of which diverged")
        return
    params = " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                      for name, value in best.params.items())  # fmt: skip
    note(
        f"{done} of {options.trials} trials done; best: trial {best.number}, {options.metric} "
        f"{best.value:.4f}: {params}"
    )


if __name__ == "__main__":
    end(main())
