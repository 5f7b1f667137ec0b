"""Photographs of many kinds, as files."""

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x112  # EXIF's


def photograph(rng, height, width):
    """Soft colours with a rectangle of noise; uint8."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    part = pixels[height // 4 : height // 2, width // 4 : width // 2]
    part[:] = rng.integers(0, 256, part.shape)
    return Image.fromarray(pixels)


def swapped_profile():
    """A colour profile in which red is green and green is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        places[bytes(profile[entry : entry + 4])] = entry + 4  # where offset and size are
    red, green = (slice(places[name], places[name] + 8) for name in (b"rXYZ", b"gXYZ"))
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


def write_photographs(folder):
    """PNGs of many sizes and kinds, a turned and a plain JPEG; their paths."""
    rng = np.random.default_rng(3)
    sizes = {"same": (64, 64), "small": (40, 31), "wide": (300, 517), "tall": (900, 350)}
    sizes |= {"narrow": (700, 5), "large": (1500, 2100)}
    images = {name: photograph(rng, *size) for name, size in sizes.items()}
    images["grey"] = photograph(rng, 200, 170).convert("L")
    images["palette"] = photograph(rng, 120, 300).quantize(64)
    images["alpha"] = photograph(rng, 150, 220)
    images["alpha"].putalpha(Image.fromarray(rng.integers(0, 256, (150, 220), dtype=np.uint8)))
    for name, image in images.items():
        image.save(folder / f"{name}.png", compress_level=1)
    profile = swapped_profile()
    photograph(rng, 90, 110).save(folder / "profile.png", icc_profile=profile)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    photograph(rng, 200, 320).save(folder / "turned.jpg", exif=turned, quality=92)
    photograph(rng, 200, 320).save(folder / "plain.jpg", quality=92, icc_profile=profile)
    return sorted(folder.iterdir())


def write_unjudged(folder):
    """Files that a browser cannot show as Python reads them, by name what is said of them."""
    rng = np.random.default_rng(4)
    deep = rng.integers(0, 65536, (50, 60), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    photograph(rng, 50, 60).convert("CMYK").save(folder / "cmyk.jpg")
    turned = Image.Exif()
    turned[ORIENTATION] = 3
    photograph(rng, 50, 60).save(folder / "turned.webp", exif=turned, lossless=True)
    return {"deep.png": "16 bits a channel", "cmyk.jpg": "CMYK", "turned.webp": "turned by EXIF"}
