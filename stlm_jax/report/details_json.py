"""`details.json`: what `metrics.json` and the table have no room for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stlm_jax.config import digest
from stlm_jax.evaluation.results import WITHOUT_FA, CategoryResult, RunResult
from stlm_jax.metrics import Result
from stlm_jax.runtime.errors import UserError
from stlm_jax.runtime.files import read_json

_PROTOCOL, _CONFIGURATION = "protocol", "configuration"


def content(run: RunResult) -> dict[str, Any]:
    """The file's content; nan where a number is undefined, fractions of 1.

    `protocol` says how it was measured, `configuration` of which run, by the digest of its
    configuration, `cost` what a prediction costs. Each of `categories` has
    its number of `images` (good and defective), `metrics` (`value`, 95 % `interval`, `error_bound`
    of binning, `reason` where undefined), `by_defect`, `calibration` and `rates`.
    """
    protocol = {key: run.config.evaluate[key] for key in ("resolution", "score_top_k")}
    steps = {f"step of {category.category}": category.step for category in run.categories}
    return {
        _PROTOCOL: {**protocol, **steps},
        _CONFIGURATION: digest(run.config),
        "cost": dataclasses.asdict(run.cost),
        "categories": {category.category: _of_category(category) for category in run.categories},
    }


def read_protocol(path: Path) -> dict[str, Any]:
    """What the numbers of two runs must share to be compared: {key: value}."""
    try:
        return dict(read_json(path)[_PROTOCOL])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: evaluate the run first (--mode=evaluate)") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: evaluate the run again (--mode=evaluate)") from error


def read_configuration(path: Path) -> str | None:
    """The digest of the configuration that the file is of; None where there is no whole one."""
    try:
        found = read_json(path)[_CONFIGURATION]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def _of_category(category: CategoryResult) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {}
    by_defect: dict[str, dict[str, float]] = {}
    for suffix, result in (("", category.result), (WITHOUT_FA, category.result_without_fa)):
        for name in result.values:
            metrics[f"{name}{suffix}"] = _of_metric(result, name)
        for defect, values in result.by_defect.items():
            named = {f"{name}{suffix}": value for name, value in values.items()}
            by_defect.setdefault(defect, {}).update(named)
    defective = sum(image.label for image in category.images)
    calibration = category.calibration
    return {
        "images": {"good": len(category.images) - defective, "defective": defective},
        "metrics": metrics,
        "by_defect": by_defect,
        "calibration": dataclasses.asdict(calibration) if calibration else None,
        "rates": category.rates,
    }


def _of_metric(result: Result, name: str) -> dict[str, Any]:
    known: dict[str, Mapping[str, Any]] = {
        "value": result.values,
        "interval": result.intervals,
        "error_bound": result.error_bounds,
        "reason": result.reasons,
    }
    return {key: values[name] for key, values in known.items() if name in values}
