"""Malformed material is refused in one line; an undefined metric is nan with its reason."""

import logging
import math
import subprocess
import sys

import numpy as np
import pytest

from stlm_jax.metrics import MetricError, check_names, evaluate, evaluate_with_reasons
from stlm_jax.runtime.errors import UserError

MAPS = np.linspace(0, 1, 18).reshape(2, 3, 3)
MASKS = np.zeros((2, 3, 3), np.uint8)
MASKS[1, 2, 1:] = 1


def changed(array, index, value):
    result = array.copy()
    result[index] = value
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maps": changed(MAPS, (1, 0, 2), np.nan)}, r"maps\[1, 0, 2\] is nan"),
        ({"maps": changed(MAPS, (0, 1, 1), -np.inf)}, r"maps\[0, 1, 1\] is -inf"),
        ({"maps": MAPS[:, :2]}, r"masks have shape \(2, 3, 3\) but maps \(2, 2, 3\)"),
        ({"maps": MAPS[0]}, r"maps have shape \(3, 3\)"),
        ({"maps": np.zeros((0, 3, 3)), "masks": np.zeros((0, 3, 3))}, "maps have shape"),
        ({"maps": [["a"]]}, "give real numbers"),
        ({"maps": [[[1.0]], [[1.0, 2.0]]]}, "maps differ in shape"),
        ({"masks": MASKS * 255}, r"masks\[1, 2, 1\] is 255; give 0 or 1"),
        ({"scores": [0.1]}, r"scores have shape \(1,\); give one for each of 2 maps"),
        ({"scores": [0.1, np.nan]}, r"scores\[1\] is nan"),
        ({"scores": None}, "need `scores`"),
        ({"labels": [0, 2]}, r"labels\[1\] is 2"),
        ({"labels": [0]}, r"labels have shape \(1,\)"),
        ({"labels": [1, 0]}, r"labels\[1\] says good"),
    ],
)
def test_malformed(arguments, message):
    complete = {"maps": MAPS, "masks": MASKS, "scores": [0.1, 0.2], "names": ["image_auroc"]}
    with pytest.raises(MetricError, match=message) as caught:
        evaluate(**(complete | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["pixel_auc", "aupro_", "aupro_x", "aupro_0", "aupro_1.5", "aupro_nan", "aupro_-0.3"]
)
def test_unknown_name(name):
    with pytest.raises(UserError, match=f"'{name}'; there are image_auroc, .* aupro_<limit>"):
        check_names(["aupro", name])
    with pytest.raises(UserError, match="unknown metric"):
        evaluate(MAPS, MASKS, names=[name])


@pytest.mark.parametrize(
    ("masks", "labels", "name", "reason"),
    [
        (MASKS * 0, None, "image_auroc", "no image is defective"),
        (MASKS, [1, 1], "image_ap", "no image is good"),
        (MASKS * 0, None, "pixel_auroc", "no defective pixel"),
        (MASKS * 0, [0, 1], "pixel_ap", "no defective pixel"),
        (MASKS * 0, None, "aupro", "no defective pixel"),
        (MASKS * 0 + 1, None, "aupro_0.05", "no normal pixel"),
        (MASKS * 0 + 1, None, "pixel_f1max", "no normal pixel"),
    ],
)
def test_undefined_is_nan_with_its_reason(masks, labels, name, reason, caplog):
    arguments = (MAPS, masks, [0.1, 0.2], labels, [name])
    values, reasons = evaluate_with_reasons(*arguments)
    assert math.isnan(values[name])
    assert reason in reasons[name]
    with caplog.at_level(logging.WARNING):
        evaluate(*arguments)
    assert f"{name} is undefined: " in caplog.text


def test_defined_metrics_survive_an_undefined_one():
    values, reasons = evaluate_with_reasons(
        MAPS, MASKS, [0.1, 0.2], labels=[1, 1], names=["image_auroc", "pixel_auroc"]
    )
    assert list(values) == ["image_auroc", "pixel_auroc"]
    assert set(reasons) == {"image_auroc"}
    assert values["pixel_auroc"] == 1.0


def test_a_label_may_know_of_a_defect_that_its_mask_lost():
    found = evaluate(MAPS, MASKS * 0, [0.1, 0.2], labels=[0, 1], names=["image_auroc"])
    assert found == {"image_auroc": 1.0}


def test_inputs_are_left_alone():
    maps, masks = MAPS.copy(), MASKS.copy()
    evaluate(maps, masks, [0.1, 0.2])
    np.testing.assert_array_equal(maps, MAPS)
    np.testing.assert_array_equal(masks, MASKS)


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.int64])
def test_any_real_dtype(dtype):
    maps = (MAPS * 17).round().astype(dtype)
    found = evaluate(maps, MASKS, names=["pixel_auroc", "aupro"])
    assert found == pytest.approx({"pixel_auroc": 1.0, "aupro": 1.0})


def test_metrics_need_no_jax():
    code = """
import sys
from stlm_jax.metrics import evaluate
assert "sklearn" not in sys.modules  # it is slow to import
evaluate([[[0.0]], [[1.0]]], [[[0]], [[1]]], [0, 1], names=["image_auroc", "image_f1max"])
assert "sklearn" in sys.modules
sys.exit("jax" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
