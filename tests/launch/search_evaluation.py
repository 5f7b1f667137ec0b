"""In the place of `stlm_jax.main --mode=evaluate`: counts its starts, every metric is a half."""

import pathlib
import sys

from stlm_jax.runtime.files import write_json


def main(arguments):
    folder = pathlib.Path(arguments[0].removeprefix("--workdir="))
    with open(folder.parents[2] / "evaluated", "a") as file:
        file.write(f"{folder.name}\n")
    write_json(folder / "results/metrics.json", {"mean": {"image_auroc": 0.5, "aupro": 0.5}})


if __name__ == "__main__":
    main(sys.argv[1:])
