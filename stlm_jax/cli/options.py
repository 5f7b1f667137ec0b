"""The options of sub-commands, in one place so that one name means one thing everywhere."""

import argparse

PRESETS = {  # files of configs/, for images of one's own
    "demo": ("own.py", "small student, 256 px, 300 steps: minutes on a laptop"),
    "fast": ("fast.py", "the same in 100 steps: a first look"),
    "tiny": ("tiny.py", "the same at 128 px: a quarter of the work, for small machines"),
    "published": ("folder.py", "the paper's student and recipe at 1024 px, with SAM: a GPU"),
}
FORMATS = {  # of exports, and the precisions that each has
    "onnx": ("float32", "float16", "int8"),
    "stablehlo": (),
    "torch": (),
    "openvino": ("float32", "float16"),
    "web": ("float32", "float16"),
}


def add_train(parser: argparse.ArgumentParser) -> None:
    """Data, preset and what is changed most often."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="good photographs, directly or in train/good/, with test/ and ground_truth/ if there",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="demo",
        help="; ".join(f"{name}: {about}" for name, (_, about) in PRESETS.items()),
    )
    parser.add_argument("--config", metavar="FILE", help="in place of a preset: a configuration")
    parser.add_argument("--workdir", metavar="DIR", help="of the run; default: runs/<name of data>")
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        help="SAM's weights; demo (what ships), random or none; default: the preset's",
    )
    for name, about in (
        ("steps", "of training"),
        ("batch", "images a step"),
        ("image_size", "pixels"),
        ("seed", "of all that is drawn"),
    ):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"{about}; default: the preset's"
        )
    parser.add_argument("--keys", action="store_true", help="lists every key, its value and range")
    add_rest(parser)


def add_rest(parser: argparse.ArgumentParser) -> None:
    """Tells of the configuration's keys, which are options too."""
    parser.add_argument("--config.KEY", metavar="VALUE", dest="key",
                        help="changes any key of the configuration")  # fmt: skip


def add_model(parser: argparse.ArgumentParser) -> None:
    """A run."""
    parser.add_argument("run", metavar="RUN", help="its workdir")
    add_rest(parser)


def add_export(parser: argparse.ArgumentParser) -> None:
    """A model, a file and its format; others are those of the conversion."""
    parser.add_argument("model", metavar="RUN", help="a category's folder of a run, or a file")
    parser.add_argument("output", metavar="OUT", help="the file to write; of web, the folder")
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: by the suffix of OUT")
    precisions = "; ".join(
        f"{kind}: {', '.join(names)}" for kind, names in FORMATS.items() if names
    )
    parser.add_argument("--precision", choices=FORMATS["onnx"], help=f"of {precisions}")
    parser.add_argument(
        "--onnxruntime_web", metavar="PATH",
        help="of web: the dist folder of the npm package onnxruntime-web; default: npm brings it",
    )  # fmt: skip
