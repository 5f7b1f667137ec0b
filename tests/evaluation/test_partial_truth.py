"""Training and evaluation where masks, or test images, are not there."""

import json
import shutil

from miniature import stand_in_step, write_config, write_dataset

from stlm_jax.main import main


def test_training_without_masks_and_without_test_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("stlm_jax.training.trainer.train_step", stand_in_step)
    data, run = tmp_path / "data", tmp_path / "run"
    write_dataset(data)
    shutil.rmtree(data / "disc/ground_truth")
    shutil.rmtree(data / "ring/test")
    shutil.rmtree(data / "ring/ground_truth")
    file = write_config(tmp_path / "tiny.py", data, ("all",))
    command = ["main", f"--config={file}", f"--workdir={run}", "--config.data.source=folder"]
    assert main([*command, "--config.train.steps=1"]) == 0
    printed = capsys.readouterr()
    assert "warning: no masks: disc: none of 3 images of spot has a mask" in printed.err
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
    assert len(list((run / "results/predict/disc").glob("*.map.png"))) == 2
