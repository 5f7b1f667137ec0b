"""Train, evaluate or predict: `python -m stlm_jax.main --config=configs/demo.py --help`."""

import sys
from collections.abc import Sequence

from stlm_jax.errors import UserError
from stlm_jax.interrupt import Interrupted, TerminateAsInterrupt

BAD_INPUT, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the program's name first) and return its exit status."""
    try:
        with TerminateAsInterrupt():
            run(sys.argv if argv is None else argv)
    except UserError as error:
        return _fail(f"error: {' '.join(str(error).split())}", BAD_INPUT)
    except OSError as error:
        if error.errno is None:
            raise
        return _fail(f"error: {error.filename or 'disk'}: {error.strerror}", BAD_INPUT)
    except Interrupted as stop:
        return _fail(str(stop), INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("stopped; run the same command again to go on", INTERRUPTED)
    return 0


def run(argv: Sequence[str]) -> None:
    """Dispatch to the mode that the command line asks for."""
    from stlm_jax.run_info import use_compilation_cache
    from stlm_jax.settings import parse

    settings = parse(argv)
    if settings is None:
        return
    use_compilation_cache(settings.workdir)
    if settings.mode == "train":
        from stlm_jax.train import train

        train(settings)
    elif settings.mode == "evaluate":
        from stlm_jax.evaluate import evaluate

        evaluate(settings)
    else:
        from stlm_jax.predict import predict

        predict(settings)


def _fail(line: str, status: int) -> int:
    print(f"\n{line}" if status == INTERRUPTED else line, file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
