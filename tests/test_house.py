"""The house: imports point one way, files and functions fit a page, every room says what it is."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROOMS = ("stlm_jax", "conversion", "configs", "benchmarks", "launch")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_imports_point_one_way():
    """The contracts are in pyproject.toml, under [tool.importlinter]."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_root_holds_few_modules():
    names = [path.name for path in (ROOT / "stlm_jax").glob("*.py") if path.stem != "__init__"]
    assert len(names) <= 8, names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "it does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 70, node.name


def pins(name, end=""):
    """Version by normalised name, of every line of a file that pins one."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(rf"^([\w.-]+)==([^\s;\\]+).*{end}$", text, re.M)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_the_lock_has_what_is_pinned_with_hashes():
    locked, pinned = pins("requirements.lock", r"\\"), pins("constraints.txt")
    assert {name: locked.get(name) for name in pinned} == pinned
    assert pins("requirements.lock") == locked  # no line without a hash after it
