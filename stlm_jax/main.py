"""Train, evaluate or predict: `python -m stlm_jax.main --config=configs/demo.py --help`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ml_collections

from stlm_jax.runtime.exit_status import end, exit_status

if TYPE_CHECKING:
    from stlm_jax.settings import Settings

STOPPED = "stopped; run the same command again to go on"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the program's name first) and returns its exit status."""
    arguments = sys.argv if argv is None else argv
    return exit_status(lambda: run(arguments), STOPPED)


def run(argv: Sequence[str]) -> None:
    """Does what the command line asks for."""
    from stlm_jax.settings import parse

    settings = parse(argv)
    if settings is not None:
        carry_out(settings)


def carry_out(settings: "Settings") -> None:
    """Does what a command line that was parsed asks for."""
    # Here, not above: these import jax, and a mistyped flag is answered without.
    from stlm_jax.inference.predict import predict
    from stlm_jax.runtime.errors import UserError
    from stlm_jax.runtime.hosts import require_one
    from stlm_jax.runtime.process import prepare
    from stlm_jax.training.members import runs_of
    from stlm_jax.training.train import train
    from stlm_jax.workdir import COMPILATION_CACHE

    config, workdir = settings.config, settings.workdir
    prepare(config.precision, workdir / COMPILATION_CACHE, settings.hosts)
    if settings.mode == "predict":
        require_one("prediction")
        predict(config, workdir)
        return
    stopped: list[str] = []
    if settings.mode == "train":
        stopped = train(config, workdir, settings.command)
    for member in runs_of(config, workdir):
        if settings.mode != "train":
            from stlm_jax.evaluation.evaluate import check_data

            check_data(member.config, member.workdir)
        evaluate_and_report(member.config, member.workdir)
        if settings.mode == "train":
            from stlm_jax.evaluation.calibrate import calibrate_untested

            calibrate_untested(member.config, member.workdir)
    if stopped:
        raise UserError(
            f"trainings that diverged and were stopped: {', '.join(stopped)}; the others are done"
        )


def evaluate_and_report(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Evaluates what was trained and writes `results/`; of several processes the first writes."""
    import jax

    from stlm_jax.evaluation.evaluate import evaluate
    from stlm_jax.report.write import panel_writer, write_results
    from stlm_jax.workdir import RESULTS

    result = evaluate(config, workdir, panel_writer(config, workdir / RESULTS))
    if result is not None and jax.process_index() == 0:
        write_results(result, workdir)


if __name__ == "__main__":
    end(main())
