"""Damaged images and masks: read as some image, or refused in a line that names the file."""

import io
import struct
import zlib

import numpy as np
import pytest
from damage import NUMBERS, damaged
from hypothesis import given
from hypothesis import strategies as st
from outcome import budget, refusal
from PIL import Image

from stlm_jax.data import images
from stlm_jax.data.inspection import inspect
from stlm_jax.data.masks import RULES
from stlm_jax.data.memory_file import MemoryFile
from stlm_jax.data.records import Record

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's; pytest drops our filter
SHAPE = (23, 31)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    if "append_images" in options:  # copies, for an image keeps what it was saved with
        options["append_images"] = [image.copy() for image in options["append_images"]]
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """A small file of every kind that is read."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8))
    deep = rng.integers(0, 65536, SHAPE).astype(np.uint16)
    grey, wide = rgb.convert("L"), Image.fromarray(deep)
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.copy(), rgb.copy()]}
    clear = rgb.convert("P")
    palette = {"transparency": 3}
    tiff = {"tiff_adobe_deflate": "deflate", "tiff_lzw": "lzw", "packbits": "packbits"}
    found = {
        "a.png": saved(rgb, "PNG"), "grey.png": saved(grey, "PNG"),
        "wide.png": saved(wide, "PNG"), "palette.png": saved(clear, "PNG", **palette),
        "alpha.png": saved(rgb.convert("RGBA"), "PNG"), "la.png": saved(rgb.convert("LA"), "PNG"),
        "turned.png": saved(rgb, "PNG", exif=turned), "moving.png": saved(rgb, "PNG", **frames),
        "wide_rgb.png": png_16(rng.integers(0, 65536, (*SHAPE, 3))),
        "wide_la.png": png_16(rng.integers(0, 65536, (*SHAPE, 2))),
        "a.jpg": saved(rgb, "JPEG"), "turned.jpg": saved(rgb, "JPEG", exif=turned),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "steps.jpg": saved(rgb, "JPEG", progressive=True), "mpo.jpg": saved(rgb, "MPO", **frames),
        "a.bmp": saved(rgb, "BMP"), "palette.bmp": saved(clear, "BMP"),
        "a.tif": saved(rgb, "TIFF"), "wide.tif": saved(wide, "TIFF"),
        "float.tif": saved(Image.fromarray(rng.random(SHAPE, np.float32)), "TIFF"),
        "int.tif": saved(Image.fromarray(deep.astype(np.int32)), "TIFF"),
        "turned.tif": saved(rgb, "TIFF", exif=turned), "pages.tif": saved(rgb, "TIFF", **frames),
        "a.webp": saved(rgb, "WEBP"), "exact.webp": saved(rgb, "WEBP", lossless=True),
        "moving.webp": saved(rgb, "WEBP", **frames),
    }  # fmt: skip
    return found | {f"{n}.tif": saved(rgb, "TIFF", compression=c) for c, n in tiff.items()}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_16(pixels) -> bytes:
    """A PNG of 16 bits a channel, which PIL reads and does not write."""
    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""),
    ))  # fmt: skip


SAMPLES = samples()


@st.composite
def image_bytes(draw, names=tuple(SAMPLES)):
    """A file's name and content: damaged bytes, or of a PNG chunks that are whole and lie."""
    name = draw(st.sampled_from(names))
    content = SAMPLES[name]
    if name.endswith(".png") and draw(st.booleans()):
        return name, draw(lying_png(content))
    return name, draw(damaged(content))


@st.composite
def lying_png(draw, content):
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index = draw(st.integers(0, len(chunks) - 1))
    kind, data = chunks[index]
    if kind == b"IHDR" and draw(st.booleans()):
        sides = st.sampled_from([n % 2**32 for n in NUMBERS])
        data = struct.pack(">II", draw(sides), draw(sides)) + data[8:]
    elif kind == b"IDAT" and draw(st.booleans()):
        data = zlib.compress(draw(damaged(zlib.decompress(data)))) if index else data
    else:
        data = draw(damaged(data)) if data else data
    chunks[index] = kind, data
    if draw(st.integers(0, 4)) == 0:
        text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))
        return content[:8] + b"".join(chunk(*one) for one in chunks[:1]) + text + b"".join(
            chunk(*one) for one in chunks[1:]
        )  # fmt: skip
    return content[:8] + b"".join(chunk(*one) for one in chunks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@budget(80, 5000)
@given(one=image_bytes(), depth=st.sampled_from(["file", "dtype", "0,4095", "-1e30,1e30"]))
def test_an_image(folder, one, depth):
    path = written(folder, *one)
    found, _ = refusal("image", lambda: images.open_rgb(path, depth), path, gib=4)
    if found is not None:
        assert found.mode == "RGB" and min(found.size) > 0
        pixels = images.read_image(path, 32, depth)
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
        frame, _ = refusal("frame", lambda: images.frame_of(path), path, gib=4)
        assert frame is not None and frame.shape == found.size[::-1]
    for look in (images.mode_of, images.frames_in, images.wide_sample):
        refusal(look.__name__, lambda look=look: look(path), path, gib=4)


@budget(30, 4000)
@given(one=image_bytes(), name=st.text(max_size=30))
def test_what_a_stranger_sent(one, name):
    """The same, from memory, under any name: of no format but those of photographs."""
    file = MemoryFile(" ".join(name.split()) or "x", one[1])
    found, _ = refusal("upload", lambda: images.open_rgb(file), gib=4)
    assert found is None or found.mode == "RGB"


@budget(50, 3000)
@given(one=image_bytes(), rule=st.sampled_from(RULES), other=image_bytes())
def test_a_mask(folder, one, rule, other):
    path = written(folder, f"mask_{one[0]}", one[1])
    image = written(folder, *other)
    found, _ = refusal("mask", lambda: images.read_mask_file(path, rule, image), path, gib=4)
    if found is not None:
        mask, remark = found
        assert mask.values.shape == mask.marked.shape and mask.marked.dtype == bool
        assert np.isfinite(mask.values).all() and "\n" not in remark
        small, _ = refusal("mask small", lambda: images.read_mask(path, 16, rule), path, gib=4)
        assert small is not None and set(np.unique(small)) <= {0, 1} and small.shape == (16, 16)
    record = Record(image, path, 1, "spot", "disc", "test")
    facts, _ = refusal("inspect", lambda: inspect(record, True, rule), gib=4)
    assert facts is not None
    assert all(p.text and "\n" not in p.text and str(folder) in p.text for p in facts.problems)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_whole_file_is_read(folder, name):
    path = written(folder, name, SAMPLES[name])
    assert sorted(images.open_rgb(path).size) == sorted(SHAPE)
    assert images.frame_of(path).shape == images.open_rgb(path).size[::-1]
