"""Image files of every mode become RGB; damaged ones become one clear error."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stlm_jax.data.images import (
    ImageError,
    frame_of,
    load_images,
    load_masks,
    read_image,
    read_mask,
)
from stlm_jax.data.reader import ImageReader
from stlm_jax.data.records import Record


def colours(height=6, width=8):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(array_or_image, path, **options):
    image = array_or_image
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path):
    path = save(colours(), tmp_path / "a.png")
    got = read_image(path, None)
    np.testing.assert_array_equal(got, colours())
    assert got.dtype == np.uint8 and got.flags.writeable


def test_resizing_is_bilinear_with_half_pixel_centres(tmp_path):
    grey = np.asarray([[0, 100], [200, 40]], np.uint8)
    got = read_image(save(grey, tmp_path / "a.png"), 4)[..., 0]
    weights = np.asarray([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(got, weights @ grey @ weights.T, atol=1)


def test_downscaling_averages_instead_of_skipping(tmp_path):
    stripes = np.tile(np.asarray([0, 255], np.uint8), (64, 32))
    got = read_image(save(stripes, tmp_path / "a.png"), 8)
    np.testing.assert_allclose(got, 127.5, atol=6)


def test_grey_and_bilevel(tmp_path):
    grey = colours()[..., 0]
    got = read_image(save(grey, tmp_path / "a.png"), None)
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, -1))
    path = save(Image.fromarray(grey).convert("1", dither=Image.Dither.NONE), tmp_path / "b.png")
    expected = np.repeat(np.where(grey >= 128, 255, 0)[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(path, None), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_own_range(tmp_path, suffix):
    deep = np.asarray([[1000, 1510], [2020, 6100]], np.uint16)
    got = read_image(save(deep, tmp_path / f"a.{suffix}"), None)
    np.testing.assert_array_equal(got[..., 0], [[0, 26], [51, 255]])  # 510 / 5100 * 255 = 25.5
    assert (got[..., 0] == got[..., 2]).all()


def test_float_grey_and_a_constant_image(tmp_path):
    path = save(np.asarray([[-1.0, 0.0], [0.5, 1.0]], np.float32), tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(path, None)[..., 0], [[0, 128], [191, 255]])
    path = save(np.full((3, 3), 7000, np.uint16), tmp_path / "b.png")
    assert not read_image(path, None).any()
    path = save(np.asarray([[np.nan, 1.0]], np.float32), tmp_path / "c.tif")
    with pytest.raises(ImageError, match=r"c\.tif.*not a number"):
        read_image(path, None)


def test_transparent_pixels_lie_over_black(tmp_path):
    rgba = np.dstack([colours(), np.full((6, 8), 255, np.uint8)])
    rgba[0, 0, 3], rgba[1, 1] = 0, (200, 100, 50, 51)  # 51 / 255 = 0.2
    got = read_image(save(rgba, tmp_path / "a.png"), None)
    assert got[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(got[1, 1], [40, 20, 10], atol=1)
    np.testing.assert_array_equal(got[2:], colours()[2:])


def test_grey_with_alpha(tmp_path):
    path = save(Image.merge("LA", [Image.new("L", (2, 1), 90), Image.new("L", (2, 1), 0)]),
                tmp_path / "a.png")  # fmt: skip
    assert not read_image(path, None).any()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(image, tmp_path / "a.png")
    assert read_image(path, None).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    path = save(image, tmp_path / "b.png", transparency=1)
    assert read_image(path, None).tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_cmyk(tmp_path):
    path = save(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), tmp_path / "a.tif")
    assert read_image(path, None)[0, 0].tolist() == [255, 0, 0]
    path = save(Image.new("CMYK", (16, 16), (255, 0, 255, 0)), tmp_path / "a.jpg")
    np.testing.assert_allclose(read_image(path, None)[8, 8], [0, 255, 0], atol=4)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, np.asarray),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.flipud(np.rot90(a, 1))),
        (6, lambda a: np.rot90(a, -1)),  # stored lying on its left side
        (7, lambda a: np.flipud(np.rot90(a, -1))),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("RGB", "L", "1"):
        stored = Image.fromarray(colours()).convert(mode)
        for name, options in {
            "a.png": {}, "a.tif": {}, "b.tif": {"compression": "tiff_lzw"},
            "a.webp": {"lossless": True},
        }.items():  # fmt: skip
            path = save(stored, tmp_path / name, exif=exif, **options)
            wanted = undo(np.asarray(stored.convert("RGB")))
            np.testing.assert_array_equal(read_image(path, None), wanted, f"{mode} {name}")
            assert frame_of(path) == (wanted.shape[:2], orientation)


def test_only_the_first_frame_counts(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (50, 200)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.tif", None) == 50).all()


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png", 8)
    for name, data in (("empty.png", b""), ("text.png", b"not an image"), ("d.png", None)):
        path = tmp_path / name
        path.mkdir() if data is None else path.write_bytes(data)
        for read in (read_image, read_mask):
            with pytest.raises(ImageError) as caught:
                read(path, 8)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(colours(64, 64), tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"big\.png.*decompression bomb"):
        read_image(path, 8)


def encoded(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(colours(20, 20))).save(buffer, kind, **options)
    return buffer.getvalue()


def upside_down():
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


COLOURS = Image.fromarray(colours(20, 20))
DEEP = Image.fromarray(colours(20, 20)[..., 0].astype(np.uint16) * 200)
WHOLE = {kind: encoded(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")}
UNUSUAL = {
    "palette": encoded("PNG", COLOURS.quantize(16), transparency=3),
    "16-bit PNG": encoded("PNG", DEEP),
    "16-bit TIFF": encoded("TIFF", DEEP, compression="tiff_lzw"),
    "float TIFF": encoded("TIFF", DEEP.convert("F"), compression="tiff_adobe_deflate"),
    "bilevel TIFF": encoded("TIFF", COLOURS.convert("1"), compression="group4"),
    "CMYK": encoded("JPEG", COLOURS.convert("CMYK")),
    "progressive": encoded("JPEG", progressive=True, exif=upside_down()),
    "lossless WebP": encoded("WEBP", COLOURS.convert("RGBA"), lossless=True, exif=upside_down()),
    "animated": encoded("WEBP", save_all=True, append_images=[COLOURS.rotate(90)]),
    "GIF": encoded("GIF"),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_truncated_file_is_an_error_not_half_an_image(tmp_path, kind):
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(WHOLE[kind][: len(WHOLE[kind]) // 2])
    with pytest.raises(ImageError, match="half"):
        read_image(path, 8)


@st.composite
def damaged_files(draw):
    files = WHOLE | UNUSUAL
    data = bytearray(files[draw(st.sampled_from(sorted(files)))])
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.one_of(st.binary(max_size=200), damaged_files()))
def test_no_bytes_raise_anything_but_an_image_error(tmp_path, data):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    try:
        image = read_image(path, 8)
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8
        assert ImageReader(8, "pad").view(path).pixels.shape == (8, 8, 3)
    try:
        mask = read_mask(path, 8)
    except ImageError:
        pass
    else:
        assert mask.shape == (8, 8) and set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize("on", [1, 255])
def test_masks_of_either_convention(tmp_path, on):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = on
    got = read_mask(save(mask, tmp_path / "m.png"), None)
    np.testing.assert_array_equal(got, mask > 0)
    assert got.dtype == np.uint8


def test_an_empty_mask_stays_empty(tmp_path):
    assert not read_mask(save(np.zeros((4, 4), np.uint8), tmp_path / "m.png"), 8).any()


def test_a_16_bit_mask(tmp_path):
    path = save(np.asarray([[0, 65535]], np.uint16), tmp_path / "m.png")
    assert read_mask(path, None).tolist() == [[0, 1]]


def test_a_resized_mask_pixel_needs_half_of_its_area(tmp_path):
    # Halving with PIL's triangle filter weighs four source columns 1, 3, 3, 1 (of 8), and at the
    # border three columns 3, 3, 1 (of 7).
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 3:] = 255  # output column 1 sees source 1..4: weight (3 + 1) / 8, exactly half
    got = read_mask(save(mask, tmp_path / "m.png"), 4)
    assert got.tolist() == [[0, 1, 1, 1]] * 4
    mask[:, 3] = 0
    got = read_mask(save(mask, tmp_path / "m.png"), 4)
    assert got.tolist() == [[0, 0, 1, 1]] * 4


def test_loading_keeps_the_order(tmp_path):
    records = []
    for index in range(5):
        image = save(np.full((4, 4), 10 * index, np.uint8), tmp_path / f"{index}.png")
        mask = None
        if index % 2:
            mask = save(np.full((4, 4), 255, np.uint8), tmp_path / f"{index}_mask.png")
        records.append(Record(image, mask, index % 2, "x", "c", "test"))
    images = load_images(records, 8)
    assert images.shape == (5, 8, 8, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    masks = load_masks(records, 8)
    assert masks.shape == (5, 8, 8) and masks.dtype == np.uint8
    assert masks.mean((1, 2)).tolist() == [0, 1, 0, 1, 0]
    (tmp_path / "3.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.png"):
        load_images(records, 8)
