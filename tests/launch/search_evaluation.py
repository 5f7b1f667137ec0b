"""In the place of `stlm_jax.main --mode=evaluate`: counts its starts, every metric is a half."""

import pathlib
import sys

from stlm_jax.runtime.files import write_json

folder = pathlib.Path(sys.argv[1].removeprefix("--workdir="))
with open(folder.parents[2] / "evaluated", "a") as file:
    file.write(f"{folder.name}\n")
write_json(folder / "results/metrics.json", {"mean": {"image_auroc": 0.5, "aupro": 0.5}})
