"""Judges any number of images with a finished model: scores, verdicts, regions, maps, overlays.

python -m stlm_jax.commands.predict MODEL INPUT … [--output=DIR] [--maps=png16] [--overlays]

Every image has a row in DIR/predictions.jsonl as soon as it is done; a command that was stopped or
killed goes on where it was. The exit status is 0 where all images were judged, 1 where some could
not be, 2 for a wrong argument.

example: python -m stlm_jax.commands.predict runs/mypart 'photos/*.png' --output=out --overlays
"""

import argparse
from collections.abc import Sequence

from stlm_jax.prediction.options import Options, add_options
from stlm_jax.runtime.exit_status import end, exit_status

STOPPED = "stopped; run the same command again to go on"


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts what `argv` (the program's name first) names; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stlm_jax.commands.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    options = Options.of(parser.error, parser.parse_args(None if argv is None else list(argv)[1:]))
    return exit_status(lambda: _run(options), STOPPED)


def _run(options: Options) -> int:
    from stlm_jax.prediction.run import run  # here: `--help` is answered without NumPy

    return run(options)


if __name__ == "__main__":
    end(main())
