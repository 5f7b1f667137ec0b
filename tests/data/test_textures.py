"""The texture bank: drawn by seed, whole images first, crops where the folder is small."""

import numpy as np
import pytest
from PIL import Image

from stlm_jax.data.demo import dataset
from stlm_jax.data.images import ImageError
from stlm_jax.data.textures import PHOTOGRAPHS, read_texture_bank
from stlm_jax.runtime.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Ten flat images of distinct grey in two subfolders."""
    for index in range(10):
        path = tmp_path / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (12, 8), 20 * index).save(path)
    (tmp_path / "class0" / "readme.txt").write_text("no image")
    return tmp_path


def greys(bank):
    return bank[:, 0, 0, 0].tolist()


def test_a_large_folder_gives_distinct_whole_images_by_seed(folder):
    bank = read_texture_bank(folder, 6, 4, 0)
    assert bank.shape == (6, 4, 4, 3) and bank.dtype == np.uint8
    assert len(set(greys(bank))) == 6
    np.testing.assert_array_equal(bank, read_texture_bank(str(folder), 6, 4, 0))
    assert greys(read_texture_bank(folder, 6, 4, 1)) != greys(bank)


def test_a_small_folder_is_used_whole_then_cropped(tmp_path):
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    bank = read_texture_bank(tmp_path, 20, 16, 0)
    spans = [int(np.ptp(item[..., 0])) for item in bank]
    assert spans[0] > 180  # the whole image
    assert max(spans[1:]) <= 80  # at most 0.8 of the shorter side, 100 columns of slope 1
    assert len({item.tobytes() for item in bank}) == 20


def test_scikit_image_photographs_are_not_the_demo_ones():
    used = {f"{category}.png" for category in dataset.CATEGORIES}
    assert not used & set(PHOTOGRAPHS)
    bank = read_texture_bank("", 30, 16, 0)
    assert bank.shape == (30, 16, 16, 3)
    assert len({item.tobytes() for item in bank}) == 30


def test_bad_input_is_named(folder):
    with pytest.raises(UserError, match=r"data\.texture_root: .*nowhere"):
        read_texture_bank(folder / "nowhere", 2, 4, 0)
    (folder / "none").mkdir()
    with pytest.raises(UserError, match="none holds no image"):
        read_texture_bank(folder / "none", 2, 4, 0)
    with pytest.raises(UserError, match=r"data\.texture_count: 0"):
        read_texture_bank(folder, 0, 4, 0)
    (folder / "class0" / "0.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"0\.png"):
        read_texture_bank(folder, 10, 4, 0)


def test_textures_that_cannot_be_read_are_left_out_on_demand(folder, capsys):
    whole = greys(read_texture_bank(folder, 6, 4, 0))
    bad = next(folder.rglob(f"{whole[2] // 20}.png"))
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=bad.name):
        read_texture_bank(folder, 6, 4, 0)
    found = greys(read_texture_bank(folder, 6, 4, 0, skip=True))
    assert found[:5] == [*whole[:2], *whole[3:]] and len({*found}) == 6
    assert f"left out: cannot read {bad}" in capsys.readouterr().err
    assert read_texture_bank(folder, 30, 4, 0, skip=True).shape == (30, 4, 4, 3)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.texture_root: no image of .* can be read"):
        read_texture_bank(folder, 6, 4, 0, skip=True)
