"""Draws the demo's data set: `python -m stlm_jax.commands.draw_demo ROOT [--seed=0]`."""

import argparse
import sys

from stlm_jax.data.demo.dataset import CATEGORIES, write_demo
from stlm_jax.runtime.exit_status import STOPPED, exit_status


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stlm_jax.commands.draw_demo", description="Draw the demo's data set."
    )
    parser.add_argument("root", help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments), STOPPED)


def _run(arguments: argparse.Namespace) -> None:
    write_demo(arguments.root, arguments.seed)
    print(f"{arguments.root}: {', '.join(CATEGORIES)}")


if __name__ == "__main__":
    sys.exit(main())
