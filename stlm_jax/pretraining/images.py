"""Training images for the demo teacher: photographs and renderings, strongly augmented."""

import numpy as np
from PIL import Image, ImageFilter

from stlm_jax.data.photographs import photograph_file
from stlm_jax.pretraining.render import noise_field, render, shape_mask

Generator = np.random.Generator

TRAINING_PHOTOGRAPHS = (
    "astronaut.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "color.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "logo.png",
    "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
HELD_OUT_PHOTOGRAPHS = ("brick.png", "grass.png", "gravel.png")  # demo categories are cut from them

PHOTOGRAPH_SHARE = 0.55  # of the images; the others are rendered
PASTE_SHARE = 0.6
_SMALLEST_CROP = 56  # pixels of the photograph


def read_photographs(names: tuple[str, ...]) -> list[np.ndarray]:
    """Photographs of scikit-image over white, each (H, W, 3) uint8."""
    photographs = []
    for name in names:
        with Image.open(photograph_file(name)) as image:
            flat = Image.new("RGBA", image.size, "white")
            flat.alpha_composite(image.convert("RGBA"))
            photographs.append(np.asarray(flat.convert("RGB")))
    return photographs


def crop(rng: Generator, photograph: np.ndarray, size: int) -> np.ndarray:
    """A random square of a photograph, scaled, half the time rotated; (size, size, 3) float32."""
    height, width = photograph.shape[:2]
    largest = min(height, width)
    side = int(np.exp(rng.uniform(np.log(min(_SMALLEST_CROP, largest)), np.log(largest + 1))))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    image = Image.fromarray(photograph[top : top + side, left : left + side])
    angle = rng.uniform(0, 360) if rng.random() < 0.5 else 0.0
    if angle:
        outer = int(size * 1.4143) + 1
        image = image.resize((outer, outer), Image.Resampling.BILINEAR)
        image = image.rotate(angle, Image.Resampling.BILINEAR)
        margin = (outer - size) // 2
        image = image.crop((margin, margin, margin + size, margin + size))
    else:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    result = np.asarray(image, np.float32)
    if rng.random() < 0.5:
        result = result[:, ::-1]
    return result[::-1] if rng.random() < 0.5 else result


def jitter_colour(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Contrast, brightness, gamma, tint, channel order, greyscale, inversion."""
    if rng.random() < 0.25:
        image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.3:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.05:
        image = 255 - image
    image = np.clip(image / 255, 0, 1) ** np.exp(rng.normal(0, 0.25))
    gain = np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.08, 3))
    return (image - 0.5) * 255 * gain + 127.5 + rng.normal(0, 22)


def draw_source(rng: Generator, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """A crop or a rendering in random colours; (size, size, 3) float32."""
    if rng.random() < PHOTOGRAPH_SHARE:
        image = crop(rng, photographs[rng.integers(len(photographs))], size)
    else:
        image = render(rng, size)
    return jitter_colour(rng, image)


def blend_mask(rng: Generator, size: int) -> np.ndarray:
    """Where another image goes: noise blobs or a few shapes; (size, size, 1) float32 in 0..1."""
    if rng.random() < 0.4:
        field = noise_field(rng, size)
        level = np.quantile(field, rng.uniform(0.5, 0.97))
        mask = np.clip((field - level) * rng.uniform(8, 80), 0, 1)
    else:
        mask = np.zeros((size, size), np.float32)
        for _ in range(rng.integers(1, 6)):
            radius = np.exp(rng.uniform(np.log(3), np.log(size / 3)))
            mask = np.maximum(mask, shape_mask(rng, size, radius))
    return mask[..., None]


def degrade(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light, blur and sensor noise, each on some of the images."""
    size = image.shape[0]
    if rng.random() < 0.3:
        y, x = np.mgrid[:size, :size] / size - 0.5
        slope = rng.normal(0, 0.5, 2)
        image = image * (1 + slope[0] * y + slope[1] * x)[..., None]
    if rng.random() < 0.25:
        blurred = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        image = np.asarray(
            blurred.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.5))), np.float32
        )
    if rng.random() < 0.35:
        image = image + rng.normal(0, rng.uniform(1, 14), image.shape)
    return image


def draw_image(rng: Generator, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """One training image, (size, size, 3) uint8: a source, often with others pasted into it."""
    image = draw_source(rng, photographs, size)
    if rng.random() < PASTE_SHARE:
        for _ in range(rng.integers(1, 3)):
            weight = blend_mask(rng, size) * rng.uniform(0.25, 1)
            image = image * (1 - weight) + draw_source(rng, photographs, size) * weight
    return np.clip(degrade(rng, image), 0, 255).astype(np.uint8)
