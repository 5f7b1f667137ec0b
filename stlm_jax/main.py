"""Train, evaluate or predict: `python -m stlm_jax.main --config=configs/demo.py --help`."""

import sys
from collections.abc import Sequence

from stlm_jax.exit_status import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the program's name first) and return its exit status."""
    arguments = sys.argv if argv is None else argv
    return exit_status(lambda: run(arguments), "stopped; run the same command again to go on")


def run(argv: Sequence[str]) -> None:
    """Dispatch to the mode that the command line asks for."""
    from stlm_jax.host_memory import keep_freed_memory
    from stlm_jax.run_info import use_compilation_cache
    from stlm_jax.settings import parse

    settings = parse(argv)
    if settings is None:
        return
    use_compilation_cache(settings.workdir)
    keep_freed_memory()
    if settings.mode == "train":
        from stlm_jax.train import train

        train(settings)
    elif settings.mode == "evaluate":
        from stlm_jax.evaluate import evaluate

        evaluate(settings)
    else:
        from stlm_jax.predict import predict

        predict(settings)


if __name__ == "__main__":
    sys.exit(main())
