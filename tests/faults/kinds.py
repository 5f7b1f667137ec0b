"""The kinds of bad or odd input that are tried: a row each, with what must come out of it.

A row's `prepare` gets a folder of its own with the data set `data`, the configuration `tiny.py`
and the finished run `run`, may spoil them, and gives the arguments of the command. Rows that must
be refused leave the trained run as it was.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stlm_jax.config import KEYS

REFUSED, GOOD = 2, 0


class Kind(NamedTuple):
    name: str
    prepare: Callable[[pathlib.Path], Sequence[str]]
    status: int
    says: str  # a regular expression of the last line of stderr, or of any where it went well
    parsed: bool = False  # whether it ends before any file but the configuration is read


def _arguments(name, *arguments, says):
    return Kind(f"arguments: {name}", lambda place: arguments, REFUSED, says, parsed=True)


def _spoil(file, content):
    def prepare(place):
        path = place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
        return ()

    return prepare


def _configuration(name, body, says):
    """A configuration file whose get_config() has `body`, from a `c` of defaults."""
    head = "from stlm_jax.config import default\nimport ml_collections, sys\n"

    def prepare(place):
        text = body if body.startswith("#") else f"{head}def get_config():\n    {body}\n"
        (place / "odd.py").write_text(text)
        return (f"--config={place / 'odd.py'}",)

    return Kind(f"configuration: {name}", prepare, REFUSED, says, parsed=True)


def _edit(**values):
    def prepare(place):
        path = place / "run/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return ()

    return prepare


def _settings(name, content, says=r"run/config\.json: not a configuration"):
    return Kind(f"config.json: {name}", _spoil("run/config.json", content), REFUSED, says)


def _new_run(*arguments):
    return lambda place: (f"--workdir={place / 'new'}", *arguments)


def _with(spoil, *arguments):
    def prepare(place):
        return (*spoil(place), f"--workdir={place / 'new'}", *arguments)

    return prepare


def _no_textures(place):
    return f"--workdir={place / 'new'}", f"--config.data.texture_root={place / 'run'}"


def _remove(*names):
    def spoil(place):
        for name in names:
            path = place / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return ()

    return spoil


def _numbers() -> list[Kind]:
    """Every key that is a number, given none, too large a one, and one below all ranges."""
    rows = []
    for key, known in KEYS.items():
        option = f"--config.{key}"
        if isinstance(known.default, bool) or not isinstance(known.default, (int, float)):
            continue
        for value in ("many", "", "nan", "-1", "1" + "0" * 20):
            if isinstance(known.default, float) and value.startswith("1"):
                value = "inf"
            if value == "-1" and known.rule.accepts(-1):  # what is left
                value = "-2"
            rows.append(
                _arguments(f"{key}={value or 'nothing'}", f"{option}={value}", says=f"{key}=")
            )
    return rows


ARGUMENTS = [
    _arguments("key that is not there", "--config.train.stepz=1", says="Did you mean"),
    _arguments("group", "--config.train=1", says="is a group"),
    _arguments("key of no group", "--config.x.y=1", says="no key 'x'"),
    _arguments("key below a value", "--config.seed.x=1", says="is a value"),
    _arguments("option that is not there", "--wokdir=x", says="Did you mean --workdir"),
    _arguments("no option", "train", says="unexpected argument"),
    _arguments("mode", "--mode=trian", says="must be one of train"),
    _arguments("mode twice", "--mode=train", "--mode=predict", says="--mode is given 2 times"),
    _arguments("mode without value", "--mode", says="--mode: the value is missing"),
    _arguments("workdir without value", "--workdir", says="--workdir: the value is missing"),
    _arguments("workdir twice", "--workdir=a", says="--workdir is given 2 times"),
    _arguments("name of teacher", "--config.teacher.name=vit_x", says="must be one of"),
    _arguments("truth", "--config.data.demo=perhaps", says="must be true or false"),
    _arguments("empty list", "--config.data.categories=", says="names separated by commas"),
    _arguments("metric", "--config.evaluate.metrics=x", says="unknown metric 'x'"),
    _arguments("digits without end", "--config.seed=" + "9" * 5000, says="must be a whole"),
    _arguments(
        "resolution", "--config.evaluate.resolution=" + "9" * 5000, says="must be image_size"
    ),
    _arguments("configuration twice", "--config=other.py", says="--config is given 2 times"),
    _arguments("configuration twice, empty", "--config", says="--config: the value is missing"),
]  # fmt: skip

CONFIGURATIONS = [
    _configuration("empty", "return ml_collections.ConfigDict()", "lacks seed and"),
    _configuration("lacks a key", "c = default(); del c.seed; return c", "lacks seed: let"),
    _configuration("lacks a group", "c = default(); del c.train; return c", "lacks train"),
    _configuration(
        "lacks the categories' steps", "c = default(); del c.train.steps_of; return c",
        "lacks train.steps_of",
    ),
    _configuration("value for a group", "c = default(); c.train = 5; return c", "lacks train|odd"),
    _configuration("another key", "c = default(); c.x = 1; return c", "config.x: there is no"),
    _configuration("text for a number", "c = default(); c.seed = 'a'; return c", "seed|odd"),
    _configuration(
        "truth for a number", "c = default(); c.train.batch_size = True; return c", "batch_size"
    ),
    _configuration("exits", "sys.exit(0)", "SystemExit"),
    _configuration("exits with a text", "sys.exit('good bye')", "SystemExit: good bye"),
    _configuration("exits when read", "#\nimport sys\nsys.exit()\n", "SystemExit"),
    _configuration("raises", "raise RuntimeError('a\\nb')", "RuntimeError: a b"),
    _configuration("recursion", "return get_config()", "RecursionError"),
    _configuration("nothing", "return None", "must have a get_config"),
    _configuration("a dictionary", "return {'seed': 1}", "must have a get_config"),
    _configuration("no function", "#\nx = 1\n", "must have a get_config"),
    _configuration("an argument", "#\ndef get_config(x): return x\n", "TypeError"),
    _configuration("syntax", "#\ndef get_config(:\n", "SyntaxError"),
    _configuration("NUL", "#\n\0\n", "Error"),
    Kind("configuration: folder", lambda p: (f"--config={p}",), REFUSED, "no such file"),
    Kind("configuration: absent", lambda p: (f"--config={p}/x.py",), REFUSED, "there are .*tiny"),
    Kind("configuration: binary", lambda p: (f"--config={p}/data/disc/train/good/000.png",),
         REFUSED, "Error"),
]  # fmt: skip

WORKDIRS = [
    _settings("a list", "[]"),
    _settings("a list of pairs", '[["seed", 1]]'),
    _settings("a number", "3"),
    _settings("a text", '"seed"'),
    _settings("null", "null"),
    _settings("empty", ""),
    _settings("cut off", '{"seed": '),
    _settings("not text", b"\xff\xfe\x00"),
    _settings("deep", "[" * 100_000),
    _settings("value for a group", '{"train": 5}'),
    _settings("text for a number", '{"seed": "a"}'),
    _settings("list for a number", '{"seed": [1]}'),
    _settings("null for a number", '{"train": {"steps": null}}'),
    Kind("config.json: other keys", _edit(x=1), REFUSED, r"config\.x=1, now it is absent"),
    Kind("config.json: another training", _edit(seed=7), REFUSED, r"seed=7, now it is 0"),
    Kind("workdir: file", lambda p: (_spoil("new", "")(p) or (f"--workdir={p / 'new'}",)),
         REFUSED, "new"),
    Kind("workdir: below a file", lambda p: (_spoil("new", "")(p) or (f"--workdir={p}/new/x",)),
         REFUSED, "new"),
    Kind("workdir: not UTF-8", lambda p: (f"--workdir={p}/\udce9",), REFUSED, r"\\udce9: .*UTF-8"),
    Kind("workdir: run.json is a list", _spoil("run/run.json", "[]"), GOOD, "finished before"),
    Kind("workdir: calibration.json is a list", lambda p: (
        _spoil("run/disc/calibration.json", "[]")(p) or ("--mode=evaluate",)), REFUSED,
         "calibration.json: not a calibration"),
    Kind("workdir: other seed", lambda p: ("--config.seed=1",), REFUSED, "seed=0, now it is 1"),
    Kind("workdir: shorter", lambda p: ("--config.train.steps=5",), REFUSED, "more than the 5"),
    Kind("workdir: not trained", _new_run("--mode=evaluate"), REFUSED, "train first"),
]  # fmt: skip

PARTS = [
    Kind("teacher: none given", _new_run("--config.teacher.checkpoint="), REFUSED, "is empty"),
    Kind("teacher: absent", _new_run("--config.teacher.checkpoint=/x.pth"), REFUSED, "/x.pth"),
    Kind("teacher: folder", _new_run("--config.teacher.checkpoint=/"), REFUSED, "/"),
    Kind("teacher: another", _new_run("--config.teacher.checkpoint=demo"), REFUSED,
         "--config.teacher.name=demo"),
    Kind("teacher: text", lambda p: (_spoil("t.pth", "text")(p) or _new_run(
        f"--config.teacher.checkpoint={p / 't.pth'}")(p)), REFUSED, "t.pth"),
    Kind("teacher: empty", lambda p: (_spoil("t.safetensors", "")(p) or _new_run(
        f"--config.teacher.checkpoint={p / 't.safetensors'}")(p)), REFUSED, "t.safetensors"),
    Kind("textures: absent", _new_run("--config.data.texture_root=/x"), REFUSED, "texture_root"),
    Kind("textures: no image", _no_textures,
         REFUSED, "texture_root"),
    Kind("memory: textures", _new_run("--config.image_size=4096", "--config.data.categories=disc",
                                      "--config.data.texture_count=9999"), REFUSED,
         r"takes about .* GB, and there are .*image_size \(now 4096\)"),
    Kind("data: absent", lambda p: ("--config.data.root=/x",), REFUSED, "/x is not a folder"),
    Kind("data: none", lambda p: ("--config.data.root=",), REFUSED, "data.root is empty"),
    Kind("data: category", lambda p: ("--config.data.categories=x",), REFUSED, "has no 'x'"),
    Kind("arguments: steps of epochs", _new_run(
        "--config.train.steps=0", "--config.train.epochs=2147483647"), REFUSED, "can be counted"),
    Kind("data: few images", _new_run("--config.train.batch_size=6"), REFUSED, "are fewer than"),
    Kind("data: no training images", _with(_remove("data/disc/train/good")), REFUSED, "disc"),
    Kind("data: image is text", _with(_spoil("data/disc/train/good/003.png", "text")), REFUSED,
         "cannot read .*003.png"),
    Kind("data: image is empty", _with(_spoil("data/disc/train/good/003.png", "")), REFUSED,
         "cannot read .*003.png"),
    Kind("data: category not UTF-8", lambda p: (
        os.rename(p / "data/disc", p / "data/\udce9") or ("--config.data.categories=\udce9",)),
         REFUSED, r"\\udce9 is not UTF-8"),
    Kind("predict: nothing", lambda p: ("--mode=predict", "--config.data.categories=disc"),
         REFUSED, "predict.input is empty"),
    Kind("predict: absent", lambda p: ("--mode=predict", "--config.data.categories=disc",
                                       "--config.predict.input=/x.png"), REFUSED, "no such file"),
    Kind("predict: text", lambda p: (_spoil("x.png", "text")(p) or (
        "--mode=predict", "--config.data.categories=disc",
        f"--config.predict.input={p / 'x.png'}")), REFUSED, "x.png"),
]  # fmt: skip


def _odd_names(place):
    for name in ("\udce9.png", "a\nb.png", "ü ' \" <b>&.png"):
        for kind in ("train/good", "test/good", "test/spot"):
            source = place / f"data/disc/{kind}/000.png"
            shutil.copy(source, source.with_name(name))
        mask = place / "data/disc/ground_truth/spot/000_mask.png"
        shutil.copy(mask, mask.with_name(f"{name[:-4]}_mask.png"))
    os.rename(place / "data/disc/test/spot", place / "data/disc/test/sp\udcfft")
    os.rename(place / "data/disc/ground_truth/spot", place / "data/disc/ground_truth/sp\udcfft")
    return ()


ODD = [
    Kind("names: any bytes, trained and evaluated",
         _with(_odd_names, "--config.data.categories=disc", "--config.train.steps=2"),
         GOOD, "written to"),
    Kind("names: any bytes, predicted", lambda p: (
        *_odd_names(p), "--mode=predict", "--config.data.categories=disc",
        f"--config.predict.input={p}/data/disc/test/good"), GOOD, "written to"),
    Kind("arguments: key twice", lambda p: (
        "--mode=evaluate", "--config.evaluate.panels=1", "--config.evaluate.panels=0",
        "--config.data.categories=disc"), GOOD, "warning: --config.evaluate.panels is given 2"),
    Kind("metrics.jsonl: damaged", lambda p: (
        _spoil("run/disc/metrics.jsonl", b'{"step": 2}\n[1]\n\xff\x00\n3\n')(p)
        or ("--config.train.steps=7", "--config.data.categories=disc")), GOOD, "written to"),
]  # fmt: skip

KINDS = [*ARGUMENTS, *_numbers(), *CONFIGURATIONS, *WORKDIRS, *PARTS, *ODD]


def trained_files(place: pathlib.Path) -> dict[str, bytes]:
    """What a refusal must leave as it was: the configuration and the checkpoints of `run`."""
    run = place / "run"
    files = [*run.glob("*/checkpoints/**/*"), run / "run.json", *run.glob("*/metrics.jsonl")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}
