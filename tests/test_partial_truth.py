"""Training and evaluation where masks, or test images, are not there."""

import json
import shutil

import numpy as np
import pytest
from miniature import write_config, write_dataset

from stlm_jax.evaluate import _measure
from stlm_jax.main import main


def test_pixel_metrics_leave_out_defective_images_without_ground_truth():
    """The first image is the specification's vector; the second must not change its AUROC."""
    first = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]])
    maps = np.stack([first, np.ones_like(first), np.zeros_like(first)])
    masks = np.zeros(maps.shape, np.uint8)
    masks[0, 0, [0, 2]] = 1
    names = ("aupro_1", "image_auroc", "pixel_auroc")
    scores, labels = np.array([0.9, 0.1, 0.2]), np.array([1, 1, 0])
    known = np.array([True, False, True])
    values = _measure(names, maps, masks, scores, labels, known)
    # With the third image there are 18 normal pixels, and the first's normal ones rank as before:
    # of the 36 pairs one is out of order.
    assert list(values) == list(names)
    assert values["pixel_auroc"] == pytest.approx(35 / 36)
    assert values["image_auroc"] == pytest.approx(0.5)  # counts the second image, which is missed


def test_training_without_masks_and_without_test_images(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    write_dataset(data)
    shutil.rmtree(data / "disc/ground_truth")
    shutil.rmtree(data / "ring/test")
    shutil.rmtree(data / "ring/ground_truth")
    file = write_config(tmp_path / "tiny.py", data, ("all",))
    command = ["main", f"--config={file}", f"--workdir={run}", "--config.data.source=folder"]
    assert main([*command, "--config.train.steps=1"]) == 0
    printed = capsys.readouterr()
    assert "warning: disc: none of 3 images of spot has a mask" in printed.err
    assert "disc: pixel metrics leave out 3 defective images without masks" in printed.err
    assert printed.err.count("ring: there is no image to test on, nothing to evaluate") == 2
    results = json.loads((run / "results/metrics.json").read_text())
    assert list(results) == ["disc", "mean"]
    assert 0 <= results["disc"]["image_auroc"] <= 1
    pixels = [name for name in results["disc"] if not name.startswith("image_")]
    assert pixels and all(results["disc"][name] is None for name in pixels)
    assert len(list((run / "results/panels").iterdir())) == 2
    assert json.loads((run / "config.json").read_text())["data"]["categories"] == ["disc", "ring"]

    shutil.rmtree(run / "results")
    assert main([*command, "--mode=evaluate", "--config.data.categories=ring"]) == 0
    assert not (run / "results").exists()

    predict = [*command, "--mode=predict", f"--config.predict.input={data / 'disc/test/good'}"]
    assert main(predict) == 2
    assert "needs one category of disc, ring: choose" in capsys.readouterr().err
    shutil.rmtree(run / "ring")
    assert main(predict) == 0
    assert len(list((run / "results/predict/disc").glob("*_map.png"))) == 2
