"""What counts as anomalous in a ground-truth file, and the union of several."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from trees import write_image

from stlm_jax.data.images import ImageError, load_masks, read_mask, read_mask_file
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


# --- `config.data.mask` ---

DEFECT, OTHER = slice(8, 20), slice(24, 30)  # rows of 40 × 50, of columns 10 to 30
WIDE = slice(10, 30)


def drawn(background, defect, other=None, shape=(40, 50)):
    """Two areas in values of their own on a background, uint8 (H, W) or (H, W, channels)."""
    pixels = np.empty((*shape, *np.shape(background)), np.uint8)
    pixels[:] = background
    pixels[DEFECT, WIDE] = defect
    pixels[OTHER, WIDE] = defect if other is None else other
    return np.asarray(pixels)


BOTH = drawn(0, 1)
FIRST = drawn(0, 1, 0)
SECOND = drawn(0, 0, 1)


def palette(index, colours):
    image = Image.fromarray(index).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def soft(pixels):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5)))


AUTO = {
    "white, alpha tells": (drawn((255, 255, 255, 0), (255, 255, 255, 255)), BOTH),
    "grey with alpha": (Image.fromarray(drawn((255, 0), (255, 255))), BOTH),
    "black on transparent black": (drawn((0, 0, 0, 0), (0, 0, 0, 255)), BOTH),
    "red brush on nothing": (drawn((0, 0, 0, 0), (255, 0, 0, 255)), BOTH),
    "brushes of two opacities": (drawn((9, 9, 9, 0), (9, 9, 9, 90), (9, 9, 9, 255)), BOTH),
    "an alpha channel that tells nothing": (drawn((0, 0, 0, 255), (255, 255, 255, 255)), BOTH),
    "opaque black around": (drawn((0, 0, 0, 200), (255, 255, 255, 255)), BOTH),
    "nothing painted": (drawn((255, 255, 255, 0), (255, 255, 255, 0)), 0 * BOTH),
    "two greys": (drawn(0, 100, 255), BOTH),
    "a dark and a bright grey of 16 bits": (drawn(0, 20, 255).astype(np.uint16) * 257, BOTH),
    "two greys as RGB": (drawn((0, 0, 0), (60, 60, 60), (200, 200, 200)), BOTH),
    "blue and red": (drawn((0, 0, 0), (0, 0, 255), (255, 0, 0)), BOTH),
    "dark blue and yellow": (drawn((0, 0, 0), (0, 0, 90), (255, 255, 0)), BOTH),
    "colours of labels": (drawn((0, 0, 0), (0, 0, 1), (1, 0, 0)), BOTH),
    "void is marked, too": (drawn(0, 1, 255), BOTH),
    "a palette": (palette(drawn(0, 1, 2), [(0, 0, 0), (0, 0, 90), (255, 0, 0)]), BOTH),
    "no black background": (drawn(50, 100, 255), SECOND),  # what is background is not known
}


def saved(source, path, **options):
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", AUTO)
def test_auto_reads_what_the_file_shows(tmp_path, name):
    source, expected = AUTO[name]
    path = saved(source, tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(path, None), expected)


@pytest.mark.parametrize(
    "name", [name for name, (source, _) in AUTO.items() if isinstance(source, np.ndarray)]
)
def test_a_mask_means_the_same_in_a_tiff(tmp_path, name):
    source, expected = AUTO[name]
    path = saved(source, tmp_path / "m.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_mask(path, None), expected)


def test_soft_and_lossy_edges_are_no_classes(tmp_path):
    """The edge of a mask lies where it lay before an encoder, a blur or a resize softened it."""
    grey = drawn(0, 255)
    half = np.asarray(Image.fromarray(grey).resize((31, 27), Image.Resampling.BILINEAR))
    cases = {
        "blurred": (soft(grey), "png", {}),
        "resized": (half, "png", {}),
        "jpeg": (grey, "jpg", {"quality": 80}),
        "colour jpeg": (drawn((0, 0, 0), (255, 0, 0)), "jpg", {"quality": 95}),
        "webp": (drawn((0, 0, 0), (255, 255, 255)), "webp", {"quality": 60}),
    }
    for name, (pixels, suffix, options) in cases.items():
        path = saved(pixels, tmp_path / f"{name}.{suffix}", **options)
        with Image.open(path) as image:
            values = np.asarray(image.convert("RGB"), int).max(-1)
        np.testing.assert_array_equal(
            read_mask(path, None), values >= values.max() / 2, err_msg=name
        )
    with Image.open(tmp_path / "jpeg.jpg") as image:  # what a JPEG was stays what it was
        path = saved(image, tmp_path / "was_jpeg.png")
        np.testing.assert_array_equal(read_mask(path, None), np.asarray(image) >= 128)


RULES = [
    ("nonzero", drawn(0, 7, 255), BOTH),
    ("nonzero", drawn((9, 9, 9, 0), (9, 9, 9, 255), (0, 0, 0, 255)), FIRST),
    ("threshold", drawn(0, 100, 255), SECOND),
    ("threshold", drawn((0, 0, 0), (0, 0, 255), (255, 0, 0)), SECOND),
    ("alpha", drawn((0, 0, 0, 0), (0, 0, 0, 255), (255, 255, 255, 60)), FIRST),
    ("palette", palette(drawn(0, 1, 2), [(255, 255, 255), (0, 0, 0), (255, 0, 0)]), BOTH),
    ("palette", palette(drawn(1, 0, 2), [(255, 255, 255), (0, 0, 0), (255, 0, 0)]), 1 - FIRST),
]


@pytest.mark.parametrize(("rule", "source", "expected"), RULES)
def test_every_rule(tmp_path, rule, source, expected):
    path = saved(source, tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(path, None, rule), expected)


@pytest.mark.parametrize(
    ("rule", "what"), [("alpha", "no alpha channel"), ("palette", "no palette")]
)
def test_a_rule_that_reads_what_is_not_there_is_refused(tmp_path, rule, what):
    path = saved(drawn(0, 255), tmp_path / "m.png")
    with pytest.raises(
        ImageError, match=rf"m\.png.*it has {what}, which config\.data\.mask={rule}"
    ):
        read_mask(path, None, rule)


# --- masks of other sizes, and turned ones ---


def turned(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


STORED = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_stored_pixels_is_turned_as_its_image_is(tmp_path, orientation, suffix):
    """PIL's own turn is the judge."""
    image = turned(tmp_path / f"a.{suffix}", STORED, orientation)
    on_stored = saved(drawn(0, 255, 0), tmp_path / "m.png")
    with Image.open(turned(tmp_path / "with_exif.png", drawn(0, 255, 0), orientation)) as file:
        upright = np.asarray(ImageOps.exif_transpose(file)) > 0
    own = read_mask(tmp_path / "with_exif.png", None, image=image)
    np.testing.assert_array_equal(own, upright)
    got, remark = read_mask_file(on_stored, image=image)
    if orientation >= 5:
        np.testing.assert_array_equal(got.marked, upright)
        assert remark.endswith(
            "m.png is 50x40, its image 40x50: it is turned as EXIF turns the image"
        )
    else:  # nothing tells on which of the two it was drawn
        np.testing.assert_array_equal(got.marked, FIRST)
        assert ("as drawn on the upright image" in remark) == (orientation > 1)
    drawn_upright, remark = read_mask_file(saved(upright, tmp_path / "upright.png"), image=image)
    np.testing.assert_array_equal(drawn_upright.marked, upright)
    assert orientation < 5 or not remark


def test_a_mask_of_other_proportions_is_refused(tmp_path):
    image = saved(STORED, tmp_path / "a.png")
    for shape, said in {(20, 25): "resized", (13, 17): "resized", (80, 101): "resized"}.items():
        remark = read_mask_file(saved(np.ones(shape, np.uint8), tmp_path / "m.png"), image=image)[1]
        assert said in remark
    for shape in ((50, 40), (40, 40), (20, 50)):
        path = saved(np.ones(shape, np.uint8), tmp_path / "m.png")
        said = rf"m\.png is {shape[1]}x{shape[0]}, its image 50x40, which is of other proportions"
        with pytest.raises(ImageError, match=said):
            load_masks([Record(image, path, 1, "dent", "nut", "test")], 8)
