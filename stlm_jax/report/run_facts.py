"""What a run was: configuration, revision, devices, cost."""

from pathlib import Path

import ml_collections

from stlm_jax.config import digest
from stlm_jax.evaluation.results import RunResult
from stlm_jax.models.components import unpublished
from stlm_jax.report.cells import UNDEFINED
from stlm_jax.workdir import read_run


def of_run(run: RunResult, workdir: Path) -> dict[str, str]:
    """Names and values, in order; those of `run.json` in `workdir` only where it can be read."""
    config, started = run.config, read_run(workdir)
    start = config.student.checkpoint or "random weights"
    changed = "".join(f", {key}={value}" for key, value in unpublished(config.student).items())
    known = {
        "run": workdir.resolve().name,
        "configuration": f"sha256 {digest(config)}",
        "seed": str(config.seed),
        "source revision": started.get("git_revision") or UNDEFINED,
        "started": started.get("started") or UNDEFINED,
        "image size": f"{config.image_size} px",
        "metrics taken at": _resolution(config),
        "student": f"{config.student.encoder}, from {start}{changed}",
        "teacher": f"{config.teacher.name} ({config.teacher.checkpoint or 'no weights given'})",
        "evaluated on": run.cost.device,
    }
    versions = started.get("versions") or {}
    if versions.get("jax"):
        known["trained with"] = f"jax {versions['jax']}, flax {versions.get('flax')}"
    return known


def _resolution(config: ml_collections.ConfigDict) -> str:
    chosen = str(config.evaluate.get("resolution", "image_size"))
    names = {"image_size": f"{config.image_size} px", "native": "the images' own size"}
    return names.get(chosen, f"{chosen} px")
