"""Has a command be read by its own program, which is stopped before it does anything."""

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings

import jax
import pytest
from documented import ROOT, UNKNOWN_HERE

# All that take a `parse` when they are imported: not while it is another, for that would stay.
import benchmarks.checkpoint  # noqa: F401
import launch.plan
import launch.search
import launch.sweep  # noqa: F401
import stlm_jax.commands.check_data
import stlm_jax.commands.compare_runs
import stlm_jax.commands.teacher_store  # noqa: F401
from stlm_jax import settings

CHILD = "STLM_READING"  # in the environment of a process that reads one command


class Read(BaseException):
    """A program had read its arguments; no Exception, which programs catch."""


def require_readable(words: list[str]) -> None:
    """Has a command's own parser read it, in the present folder; fails where it refuses."""
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program == "python" and rest[:2] == ["-m", "pip"]:
        program, rest = "pip", rest[2:]
    if program == "python":
        _python(rest)
    elif program == "stlm":
        _read_by(lambda: runpy.run_module("stlm_jax.cli.main", run_name="__main__"), words)
    elif program == "make":
        told = subprocess.run(["make", "--dry-run", "--always-make", *rest], cwd=ROOT, check=True,
                              capture_output=True, text=True).stdout  # fmt: skip
        for line in told.splitlines():
            if re.search("-m (benchmarks|stlm_jax)", line):
                require_readable(shlex.split(line))
    elif program == "pip":
        _pip(rest)
    elif program == "pytest":
        _pytest(rest)
    elif program.startswith("launch/"):
        assert (ROOT / program).is_file()
        _require_main(rest)
    elif program != "curl" and words != [".", ".venv/bin/activate"]:  # curl's are run
        assert program in UNKNOWN_HERE, f"nothing reads {program}, nothing says what it needs"
        for word in rest:  # our own files among its arguments
            assert not word.startswith(("launch/", "configs/")) or (ROOT / word).is_file(), word
        _require_main(rest)


def _require_main(words):
    """Options that a script of `launch/` passes on."""
    options = [part for word in words for part in word.removeprefix("OPTIONS=").split()]
    options = [option for option in options if option.startswith("--") and option != "--env"]
    if options:
        assert settings.parse(["main", *options])


def _python(rest):
    if rest[0] == "-m":
        module = rest[1]
        found = importlib.util.find_spec(module)
        assert found and found.origin, f"there is no module {module}"
        if rest[1:] == ["benchmarks.code_size"]:  # which has no parser
            return
        _read_by(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True), rest[1:])
        return
    script = ROOT / rest[0]
    if "jnp.float32 = jnp.float64" in script.read_text():  # for good
        code = f"import reading; reading.require_readable({['python', *rest]!r})"
        child = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", CHILD: "1"}
        if CHILD not in os.environ:
            subprocess.run([sys.executable, "-c", code], env=child, check=True)
            return
    if "argparse" in script.read_text():
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(script.parent)
            _read_by(lambda: runpy.run_path(str(script), run_name="__main__"), rest)
    else:
        assert len(rest) == 1, f"{script} takes no arguments"


def _pip(rest):
    from pip._internal.commands import create_command

    name, *options = rest
    given, wanted = create_command(name).parse_args(options)
    for text in [*wanted, *given.editables]:
        extras = re.search(r"\[(.*)\]", text)
        if extras and (text.startswith(".") or "stlm_jax" in text):
            project = (ROOT / "pyproject.toml").read_text()
            for extra in extras[1].split(","):
                assert re.search(rf"^{extra} = \[", project, re.M), extra
            assert text.startswith("."), f"{text}: is in no package index"
    assert all((ROOT / file).is_file() for file in given.requirements)


def _pytest(rest):
    files = [ROOT / word for word in rest if word.endswith(".py")]
    for word in rest[rest.index("-k") + 1 :] if "-k" in rest else ():
        assert any(re.search(rf"def test_\w*{word}", file.read_text()) for file in files), word
    assert all(file.is_file() for file in files)
    assert {word for word in rest if word.startswith("-")} <= {"-k", "-m"}


@contextlib.contextmanager
def _as_it_was():
    """Programs set up JAX and their process as they please."""
    known, environment = dict(jax.config.values), dict(os.environ)
    try:
        with warnings.catch_warnings():
            # That a module is imported already, of which runpy warns, does no harm here.
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        for name, value in known.items():
            if jax.config.values[name] != value:
                jax.config.update(name, value)
        os.environ.clear()
        os.environ.update(environment)


def _read_by(run, words):
    """Runs a program until it has read its arguments."""
    with _as_it_was(), pytest.MonkeyPatch.context() as patch, contextlib.suppress(Read):
        patch.setattr(sys, "argv", list(words))
        patch.setattr("stlm_jax.runtime.exit_status.end", sys.exit)  # which ends the process
        _stop_when_read(patch, words[0])
        try:
            run()
        except SystemExit as end:
            raise AssertionError(f"{' '.join(words)}: refused ({end.code})") from None
        raise AssertionError(f"{' '.join(words)}: ran without reading its arguments")
    for name, module in list(sys.modules.items()):
        kept = getattr(vars(module).get("parse"), "__qualname__", "") if module else ""
        assert "_stop_" not in kept, f"{name} was imported while parse was another"


def _stop_when_read(patch, program):
    parse, parse_args = settings.parse, argparse.ArgumentParser.parse_args
    parse_known = argparse.ArgumentParser.parse_known_args

    def stop(*_, **__):
        raise Read

    def parsed(argv):
        assert parse(argv) is not None or "--help" in argv
        raise Read

    def known(parser, args=None, namespace=None):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
        _, rest = parse_known(parser, args, namespace)
        assert all(word.startswith("--config.") for word in rest), rest
        assert not rest or parse(["benchmark", f"--config={ROOT / 'configs/demo.py'}", *rest])
        raise Read

    def whole(parser, args=None, namespace=None):
        parse_args(parser, args, namespace)
        raise Read

    if program.startswith("benchmarks."):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", known)
    elif not program.startswith("launch."):
        patch.setattr(argparse.ArgumentParser, "parse_args", whole)
        patch.setattr("stlm_jax.settings.parse", parsed)
        for function in ("prediction.run.run", "commands.serve.serve", "commands.check_data.parse",
                         "commands.compare_runs.compare_runs"):  # fmt: skip
            patch.setattr(f"stlm_jax.{function}", parsed if function.endswith("parse") else stop)
    else:
        for module in ("launch.options", "launch.study.options", "launch.tuning.options"):
            _stop_after(patch, module)


def _stop_after(patch, module):
    """The command of `launch` reads all that it is given, then stops."""
    read = __import__(module, fromlist=["parse"]).parse

    def parsed(argv):
        options = read(argv)
        assert options is not None
        if module.endswith("tuning.options"):
            from launch.tuning.space import check_space, load_space

            check_space(load_space(options.space), options.config)
        raise Read

    patch.setattr(f"{module}.parse", parsed)
