"""`details.json`: what `metrics.json` and the table have no room for."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from stlm_jax.evaluation.results import WITHOUT_FA, CategoryResult, RunResult
from stlm_jax.metrics import Result
from stlm_jax.runtime.errors import UserError

_PROTOCOL = "protocol"


def content(run: RunResult) -> dict[str, Any]:
    """The file's content; nan where a number is undefined, fractions of 1.

    `protocol` says how it was measured, `cost` what a prediction costs. Each of `categories` has
    its number of `images` (good and defective), `metrics` (`value`, 95 % `interval`, `error_bound`
    of binning, `reason` where undefined), `by_defect`, `calibration` and `rates`.
    """
    evaluated = run.config.evaluate
    protocol = {key: evaluated[key] for key in ("resolution", "score_top_k")}
    steps = {f"step of {one.category}": one.step for one in run.categories}
    return {
        _PROTOCOL: {**protocol, **steps},
        "cost": dataclasses.asdict(run.cost),
        "categories": {one.category: _of_category(one) for one in run.categories},
    }


def read_protocol(path: Path) -> dict[str, Any]:
    """What the numbers of two runs must share to be compared: {key: value}.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))[_PROTOCOL])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: evaluate the run first (--mode=evaluate)") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: evaluate the run again (--mode=evaluate)") from error


def _of_category(one: CategoryResult) -> dict[str, Any]:
    kinds = {"": one.result, WITHOUT_FA: one.result_without_fa}
    by_defect: dict[str, dict[str, float]] = {}
    for suffix, result in kinds.items():
        for defect, values in result.by_defect.items():
            named = {f"{name}{suffix}": value for name, value in values.items()}
            by_defect.setdefault(defect, {}).update(named)
    defective = sum(image.label for image in one.images)
    return {
        "images": {"good": len(one.images) - defective, "defective": defective},
        "metrics": {
            f"{name}{suffix}": _of_metric(result, name)
            for suffix, result in kinds.items()
            for name in result.values
        },
        "by_defect": by_defect,
        "calibration": dataclasses.asdict(one.calibration) if one.calibration else None,
        "rates": one.rates,
    }


def _of_metric(result: Result, name: str) -> dict[str, Any]:
    known: dict[str, Any] = {"value": result.values[name]}
    if name in result.intervals:
        known["interval"] = result.intervals[name]
    if name in result.error_bounds:
        known["error_bound"] = result.error_bounds[name]
    if name in result.reasons:
        known["reason"] = result.reasons[name]
    return known
