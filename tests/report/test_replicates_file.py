"""`replicates.npz` holds what runs are compared by; a damaged one is told in a line."""

import dataclasses
import hashlib

import numpy as np
import pytest
from small_results import NAMES, category, image, run

from stlm_jax.report.replicates import digest_of, read_replicates, write_replicates
from stlm_jax.report.write import write_results
from stlm_jax.runtime.errors import UserError


def test_the_evaluation_writes_both_maps_metrics(tmp_path):
    brick, tile = category("brick"), category("tile")
    write_results(run(brick, tile), tmp_path / "run")
    path = tmp_path / "run/results/replicates.npz"
    found = read_replicates(path)
    assert list(found) == ["brick", "tile"]
    assert set(found["brick"].metrics) == {*NAMES, *(f"{name}_without_fa" for name in NAMES)}
    for name in NAMES:
        values = found["brick"].metrics[name]
        assert values.dtype == np.float32 and values.shape == (len(brick.replicates[name]),)
        np.testing.assert_allclose(values, brick.result.replicates[name], atol=1e-7)
    without = found["tile"].metrics["aupro_without_fa"]
    np.testing.assert_allclose(without, tile.result_without_fa.replicates["aupro"], atol=1e-7)
    with np.load(path, allow_pickle=False) as file:
        assert "brick/image_auroc" in file.files
    assert path.stat().st_size < 100_000


def test_what_must_agree_for_pairing(tmp_path):
    images = [image("good/a", 0.1), image("good/b", 0.2), image("crack/c", 0.9)]
    path = write_replicates(tmp_path / "r.npz", [category("x", images=images)])
    found = read_replicates(path)["x"]
    assert found.images == 3
    assert found.digest == hashlib.sha256(b"0 good/a\n0 good/b\n1 crack/c\n").hexdigest()
    relabelled = [*images[:2], dataclasses.replace(images[2], label=False)]
    for changed in (images[::-1], images[:2], relabelled):
        assert digest_of(changed) != found.digest


@pytest.mark.parametrize("damage", ["absent", "cut", "empty", "text", "other", "pickle", "folder"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    path = tmp_path / "replicates.npz"
    if damage == "cut":
        write_replicates(path, [category("brick")])
        path.write_bytes(path.read_bytes()[:-400])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "other":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, **{"brick/image_auroc": np.array([{}], object)})
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        read_replicates(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    assert damage == "folder" or text.endswith("evaluate the run again (--mode=evaluate)")
