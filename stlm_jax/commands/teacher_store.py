"""Computes the teacher's features once, for any number of runs to train from.

python -m stlm_jax.commands.teacher_store --config=FILE --config.teacher.store=DIR
    [--config.teacher.store_variants=K] [--config.KEY=VALUE]

Writes features of every training image and of K pseudo-anomalous variants of it to DIR; where the
images of a category are turned, each variant is turned by itself. The room that they take is said
before it is taken. Whatever ends the command, what is there can be used, and the same command goes
on. Runs of the same data, teacher, size and generator train from it with
--config.teacher.store=DIR; they may differ in seed, student, losses and optimiser.
"""

import sys
from collections.abc import Sequence

from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.settings import parse

STOPPED = "stopped; what is written can be used, run the same command again to go on"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the store that `argv` (the program's name first) names; the exit status."""
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h"} & set(argv):
        print(__doc__, end="")
        return 0
    return exit_status(lambda: _run(argv), STOPPED)


def _run(argv: list[str]) -> None:
    settings = parse(argv)
    assert settings is not None
    from stlm_jax.runtime.paths import path_of
    from stlm_jax.runtime.process import prepare
    from stlm_jax.training.store_writer import write_store
    from stlm_jax.workdir import COMPILATION_CACHE

    config = settings.config
    store = config.teacher.store
    prepare(config.precision, path_of(store) / COMPILATION_CACHE if store else None)
    write_store(config)


if __name__ == "__main__":
    end(main())
