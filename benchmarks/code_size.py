"""How large the code is: `python -m benchmarks.code_size [REVISION …]`.

Of the working tree, or of revisions of the repository: lines of `stlm_jax/` and `conversion/` with
and without the `Raises:` sections of docstrings, modules in the root of `stlm_jax/`, the longest
file and the longest function.
"""

import ast
import re
import subprocess
import sys

_PRODUCT = re.compile(r"(stlm_jax|conversion)/.*\.py")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def sources(revision: str) -> dict[str, str]:
    """Path and text of the product's files in a revision; empty: in the working tree."""
    if not revision:
        names = _git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        return {n: open(n, encoding="utf-8").read() for n in names if _PRODUCT.fullmatch(n)}
    names = _git("ls-tree", "-r", "--name-only", revision).splitlines()
    return {n: _git("show", f"{revision}:{n}") for n in names if _PRODUCT.fullmatch(n)}


def raises_lines(text: str) -> int:
    """Lines of `Raises:` sections, with the empty line before each."""
    count = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            inside = False
            for line in (ast.get_docstring(node) or "").splitlines():
                inside = line.strip() == "Raises:" or (inside and line.startswith(" "))
                count += inside + (line.strip() == "Raises:")
    return count


def function_lengths(path: str, text: str) -> list[tuple[int, str]]:
    """Lines and names of the functions of a file, docstrings and decorators included."""
    return [
        (node.end_lineno - node.lineno + 1, f"{path}:{node.name}")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]


def main() -> None:
    """Prints a block a revision."""
    for revision in sys.argv[1:] or [""]:
        files = sources(revision)
        lines = {path: text.count("\n") for path, text in files.items()}
        raises = sum(map(raises_lines, files.values()))
        total = sum(lines.values())
        root = [path for path in files if re.fullmatch(r"stlm_jax/[^/_][^/]*\.py", path)]
        longest = max(lines, key=lambda path: lines[path])
        function = max(f for path, text in files.items() for f in function_lengths(path, text))
        print(f"{revision or 'working tree'}: {len(files)} files, {total} lines, {total - raises} "
              f"without Raises ({raises})")  # fmt: skip
        print(f"  {len(root)} modules in the root of stlm_jax")
        print(f"  longest file {lines[longest]} lines, {longest}")
        print(f"  longest function {function[0]} lines, {function[1]}")


if __name__ == "__main__":
    main()
