"""What counts as anomalous in a ground-truth file, and the union of several."""

import numpy as np
import pytest
from PIL import Image
from trees import write_image

from stlm_jax.data.images import ImageError, load_masks, read_mask
from stlm_jax.data.records import Record


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 0, 7], [0, 1, 0, 1]),  # numbers of defect classes
        ([0, 1, 32, 2], [0, 1, 1, 1]),
        ([0, 16, 33, 17], [0, 0, 1, 1]),  # grey values: from half of the largest
        ([3, 127, 255, 128], [0, 0, 1, 1]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_class_numbers_and_grey_values(tmp_path, values, expected, dtype):
    path = write_image(tmp_path / "m.png", np.array([values], dtype))
    assert read_mask(path, None).tolist() == [expected]


def test_soft_float_masks_are_cut_at_half(tmp_path):
    path = write_image(tmp_path / "m.tif", np.array([[0, 0.4, 0.6, 1]], np.float32))
    assert read_mask(path, None).tolist() == [[0, 0, 1, 1]]


def test_every_colour_of_a_palette_but_black_counts(tmp_path):
    image = Image.new("P", (4, 1))
    image.putpalette([0, 0, 0, 128, 0, 0, 255, 255, 255, 0, 0, 64])
    for x in range(4):
        image.putpixel((x, 0), x)
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", None).tolist() == [[0, 1, 1, 1]]


def test_the_union_is_made_before_resizing(tmp_path):
    """Two masks that each cover a quarter of a pixel to be cover half of it together."""
    quarters = np.zeros((2, 2, 2), np.uint8)
    quarters[0, 0, 0] = quarters[1, 1, 1] = 255
    paths = tuple(write_image(tmp_path / f"{i}.png", quarters[i]) for i in range(2))
    assert [read_mask(path, 1).tolist() for path in paths] == [[[0]], [[0]]]
    assert read_mask(paths, 1).tolist() == [[1]]
    record = Record(tmp_path / "x.png", paths, 1, "dent", "nut", "test")
    assert load_masks([record], 1).tolist() == [[[1]]]


def test_masks_of_different_sizes_cannot_be_joined(tmp_path):
    paths = [
        write_image(tmp_path / f"{size}.png", np.ones((size, size), np.uint8)) for size in (2, 3)
    ]
    with pytest.raises(ImageError, match=r"3\.png is not of the size of .*2\.png"):
        read_mask(paths, 4)
