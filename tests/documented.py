"""The commands of the documents: found, with placeholders filled in, and read by their parsers.

A command that cannot be run here says so beside it, visibly: `# needs npm` in its line or in the
line above it, `(needs npm)` after one in a sentence, or once for a page `commands here need npm.`.
"""

import argparse
import contextlib
import importlib.util
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from typing import NamedTuple

import pytest

# All that take a `parse` when they are imported: not while it is another, for that would stay.
import benchmarks.checkpoint  # noqa: F401
import launch.plan
import launch.search
import launch.sweep  # noqa: F401
import stlm_jax.commands.check_data
import stlm_jax.commands.compare_runs
import stlm_jax.commands.teacher_store  # noqa: F401
from stlm_jax import settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What a command may need that is not here, and the commands that need it, marked or not.
NEEDS = {
    "SAM's weights": r"sam_vit_\w+\.pth|--preset=published|vit_h\.safetensors",
    "the published weights": r"twostream\.pth",
    "the golden vectors": r"\bGOLDEN\b|test_golden_training",
    "npm": r"--format=web|to_web",
    "ffmpeg": r"^ffmpeg",
    "SLURM": r"executor=slurm|^sbatch",
    "a Cloud TPU": r"tpu_vm\.sh",
    "GKE": r"xpk\.sh",
    "SkyPilot": r"^sky ",
    "a Google account": r"^gcloud",
    "the TPU's compiler": r"topology=v\d|tpu_programs",
    "a GPU": r"accelerator_step",
    "pre-commit": r"^pre-commit",
    "Optuna's dashboard": r"^optuna-dashboard",
    "the network": r"https://|^apt-get|^pip install (?!-)",
    "a data set": r"(?<!plan )--config=configs/(mvtec|visa)\.py|--base=configs/mvtec",
}
_UNKNOWN_HERE = ("ffmpeg", "sbatch", "sky", "gcloud", "apt-get", "pre-commit", "optuna-dashboard")

_FILLED = (  # placeholders, the first that match first
    (r"\[NAME=\]MODEL", "disc=runs/mypart"),
    (r" \[options\]", ""),
    (r"--config\.KEY=VALUE", "--config.seed=1"),
    (r"--config\.seed=…", "--config.seed=1"),
    (r"--mode=(train\|evaluate\|predict|…)", "--mode=evaluate"),
    (r"--workdir=DIR(?= \[--mode)", "--workdir=RUN"),
    (r"(--workdir=)(gs://)?…", r"\1runs/new"),
    (r"=FILE\b", "=configs/demo.py"),
    (r"--topology=NAME", "--topology=v5e:4x4"),
    (r"build_tfds SOURCE", "build_tfds mvtec_ad"),
    (r"conversion\.to_…", "conversion.to_onnx"),
    (r" …", ""),
    (r"\[(?!\w+[\],])|(?<=\S)\](?=\s|$)", ""),
)
_COMMAND = re.compile(
    r"(?:\.venv/bin/)?(?:python3?|stlm|make|pip|curl|npm|pytest|git|sh|launch/\S+|"
    + "|".join(_UNKNOWN_HERE)
    + r") "
)
_MODULE = re.compile(r"(?:launch|benchmarks|conversion|stlm_jax)\.[\w.…]+ ")


class Command(NamedTuple):
    """One command of a page.

    Attributes:
        page: its name.
        text: on one line.
        marks: what it says that it needs.
    """

    page: str
    text: str
    marks: frozenset[str]

    def words(self) -> list[str]:
        """With placeholders filled in."""
        text = self.text
        for pattern, filled in _FILLED:
            text = re.sub(pattern, filled, text)
        return shlex.split(text)


def commands(page: pathlib.Path) -> list[Command]:
    """All of a page, in its order in fenced blocks, then those in sentences."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    whole = " ".join(re.findall(r"commands here need ([^.]*)\.", " ".join(text.split())))
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M):
        found += [Command(name, t, _marks(f"needs {whole} {m}")) for t, m in _lines(block)]
    spans = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)(\s*[(,]\s*needs [^.;)]*)?", spans):
        for one in " ".join(match[1].split()).split(" && "):
            if _MODULE.match(one):
                one = f"python -m {one}"
            if _COMMAND.match(one):
                found.append(Command(name, one, _marks(f"needs {whole} {match[2] or ''}")))
    return found


def _lines(block):
    """Commands of a block and the comments that go with each."""
    above, variables = "", {}
    for line in block.replace("\\\n", " ").splitlines():
        code, _, comment = re.match(
            r"((?:'[^']*'|\"[^\"]*\"|[^#'\"]|(?<=\S)#)*)(#)?(.*)", line
        ).groups()
        code = " ".join(code.split())
        if assigned := re.fullmatch(r"([A-Z]+)=(\S+)", code):
            variables[assigned[1]] = assigned[2]
        elif code:
            for variable, value in variables.items():
                code = code.replace(f"${variable}", value)
            yield code, f"{above} {comment}"
        above = comment if not code else ""


def _marks(said: str) -> frozenset[str]:
    if "needs" not in said:
        return frozenset()
    after = said[said.index("needs") :]
    return frozenset(need for need in NEEDS if re.search(rf"\b{re.escape(need)}", after))


def needed(command: Command) -> set[str]:
    """What a command needs by what it is."""
    return {need for need, pattern in NEEDS.items() if re.search(pattern, command.text)}


# --- reading a command as its program does ---


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
        assert program in _UNKNOWN_HERE, f"nothing reads {program}, nothing says what it needs"
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
    assert all(file.is_file() for file in files)
    if "-k" in rest:
        word = rest[rest.index("-k") + 1]
        assert any(re.search(rf"def test_\w*{word}", file.read_text()) for file in files), word
    assert {word for word in rest if word.startswith("-")} <= {"-k", "-m"}


def _read_by(run, words):
    """Runs a program until it has read its arguments."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Read):
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
