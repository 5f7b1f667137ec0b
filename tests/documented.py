"""The commands of the documents, with placeholders filled in.

A command that cannot be run here says so beside it, visibly: `# needs npm` in its line or in the
line above it, `(needs npm)` after one in a sentence, or once for a page `commands here need npm.`.
"""

import pathlib
import re
import shlex
from typing import NamedTuple

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
UNKNOWN_HERE = ("ffmpeg", "sbatch", "sky", "gcloud", "apt-get", "pre-commit", "optuna-dashboard")

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
    + "|".join(UNKNOWN_HERE)
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
