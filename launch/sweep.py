"""Trains a named study of ablations and compares its settings with the first of them.

`python -m launch.sweep --config=configs/ablations.py:components --base=configs/demo.py`; `--help`
lists all options.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launch.study import jobs
from launch.study.options import Options, parse
from launch.study.packs import Pack, packs_of
from launch.study.state import cost, divergence, is_settled
from launch.study.studies import absent_file, changed, shown, text_of
from launch.study.trial import DIVERGED, DONE, FAILED, MISSING, Study, Trial
from launch.study.work import Key, Work
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.runtime.files import write_json
from stlm_jax.runtime.progress import note, say
from stlm_jax.workdir import check_same_run, git_revision

STUDY, FACTS = "study", "study.json"  # the folder of what came out, and what it is of
_STOPPED = "stopped; the jobs of a cluster go on; run the same command again to go on"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the program's name first) and returns its exit status."""
    arguments = list(sys.argv if argv is None else argv)
    return exit_status(lambda: _run(arguments), _STOPPED)


def _run(argv: Sequence[str]) -> None:
    options = parse(argv)
    if options is None:
        return
    absent = {
        name: file
        for name, changes in options.settings.items()
        if (file := absent_file(changed(options.config, changes)))
    }
    there = {name: x for name, x in options.settings.items() if name not in absent}
    for name, file in absent.items():
        note(f"warning: {name} is skipped: {file} is not there")
    packs = packs_of(there, options.seeds, options.workdir)
    if options.executor == "print":
        _print_commands(packs, options)
        return
    work = Work(packs, _with_categories(options))
    for key, folder in work.folders.items():
        check_same_run(folder, work.configs[key])
    if options.dry_run:
        _say_plan(work, absent)
        return
    write_json(options.workdir / FACTS, _facts(options))
    submit = jobs.Submitter(options.executor, options.workdir / jobs.JOBS, options.slurm)

    def tell() -> None:
        _write(options, work, absent)

    work.run(submit, options.parallel, tell, submit.earlier)
    say(_write(options, work, absent))
    note(f"written to {options.workdir / STUDY}")
    wrong = [f"{setting}, seed {seed}" for setting, seed in work.failed]
    if wrong or absent:
        raise UserError(
            f"trials that are not there: {', '.join([*wrong, *absent])}; why is said in "
            f"{options.workdir / STUDY}; run the same command again once that is mended"
        )


def _with_categories(options: Options) -> list[str]:
    """Has the data there; the base's options, which name its categories where they said `all`.

    What a run was evaluated with names them, and by that it is known again.
    """
    from stlm_jax.data import dataset  # here: a mistyped flag is answered without

    asked = options.config.data.categories
    dataset.prepare(options.config)
    found, key = options.config.data.categories, "--config.data.categories="
    if found == asked:
        return list(options.base)
    return [*(part for part in options.base if not part.startswith(key)), key + text_of(found)]


def _print_commands(packs: Sequence[Pack], options: Options) -> None:
    for pack in packs:
        say(shlex.join(["python", *pack.command(options.base)[1:]]))


def _say_plan(work: Work, absent: Mapping[str, str]) -> None:
    """The packs, what is left of them and what that takes, and what it would take one by one."""
    from launch.study.cost import Cost
    from launch.study.cost import cost as cost_of
    from stlm_jax.report import tables

    rows = [["pack", "settings", "trials left", "done", "steps", "teacher passes", "PFLOP"]]
    total = alone = None
    for pack in work.packs:
        left = work.left(pack)
        missing = work.missing(pack)
        cells = ["0", "0", "0"]
        if left is not None:
            found = cost_of(work.config(left))
            total = found if total is None else total + found
            one = cost_of(work.configs[missing[0]])  # of all of the pack, near enough
            one = Cost(one.steps * len(missing), *(len(missing) * n for n in one[1:]))
            alone = one if alone is None else alone + one
            cells = _cells(found)
        done = len(pack.trials()) - len(missing)
        rows.append([pack.name, ", ".join(pack.settings), str(len(missing)), str(done), *cells])
    say(tables.align(rows).rstrip())
    for name, file in absent.items():
        say(f"skipped: {name}: {file} is not there")
    if total is not None and alone is not None:
        for what, found in (("in all", total), ("by runs of their own, about", alone)):
            steps, passes, operations = _cells(found)
            say(f"{what}: {steps} steps, {passes} passes of the teacher, {operations} PFLOP")


def _cells(found: Any) -> list[str]:
    return [str(found.steps), f"{found.passes:.0f}", f"{found.operations / 1e15:.4g}"]


def _write(options: Options, work: Work, absent: Mapping[str, str]) -> str:
    from launch.study.write import write_study  # here: its imports are of the slow kind

    settings = {name: shown(changes) for name, changes in options.settings.items()}
    study = Study(options.study, options.baseline, settings, options.seeds, options.notes)
    trials = [
        _trial(options, work, absent, (name, seed))
        for name in options.settings
        for seed in options.seeds
    ]
    return write_study(options.workdir / STUDY, study, trials)


def _trial(options: Options, work: Work, absent: Mapping[str, str], key: Key) -> Trial:
    name, seed = key
    if name in absent:
        return Trial(name, seed, options.workdir / name, FAILED, f"{absent[name]} is not there")
    folder, config = work.folders[key], work.configs[key]
    seconds, passes, together = cost(folder, config)
    state, why = (FAILED, work.failed[key]) if key in work.failed else (MISSING, "")
    if stopped := divergence(folder, config.data.categories):
        state, why = DIVERGED, stopped
    elif is_settled(folder, config):
        state = DONE
    return Trial(name, seed, folder, state, why, seconds, passes, together)


def _facts(options: Options) -> dict[str, Any]:
    return {
        "study": options.study,
        "baseline": options.baseline,
        "base": list(options.base),
        "settings": {name: dict(changes) for name, changes in options.settings.items()},
        "seeds": list(options.seeds),
        "command": shlex.join(options.command),
        "git_revision": git_revision(),
    }


if __name__ == "__main__":
    end(main())
