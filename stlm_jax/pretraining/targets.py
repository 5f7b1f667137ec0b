"""What the demo teacher learns: centred, partly whitened ImageNet features."""

import dataclasses
from collections.abc import Callable

import numpy as np

from stlm_jax.pretraining.images import draw_image
from stlm_jax.runtime.progress import track

# Images (N, H, W, 3) uint8 to features (N, H/16, W/16, C), such as EfficientNetLite0.features.
Extractor = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Whitening:
    """An affine map of features: centre, standardise, rotate to principal axes, rescale.

    With the mean gone, unrelated contents have a cosine near 0 instead of near 1. The share of
    whitening keeps a few strong axes from deciding every cosine, without blowing up the noise of
    the weak ones.

    Attributes:
        mean: (C,) float32.
        matrix: (C, K) float32.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, components: int, share: float = 0.5) -> "Whitening":
        """From samples (N, C), C ≥ components. `share` 0 is plain PCA, 1 is full whitening."""
        samples = features.astype(np.float64)
        mean, deviation = samples.mean(0), samples.std(0) + 1e-6
        values, vectors = np.linalg.eigh(np.cov(((samples - mean) / deviation).T))
        values, vectors = values[::-1][:components], vectors[:, ::-1][:, :components]
        # An eigenvector may come with either sign: its largest entry is made positive.
        signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(components)])
        matrix = vectors * signs * np.maximum(values, 1e-8) ** (-share / 2) / deviation[:, None]
        spread = np.square((samples - mean) @ matrix).sum(1).mean()
        matrix *= np.sqrt(components / spread)  # mean squared length: one per channel
        return cls(mean.astype(np.float32), matrix.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(..., C) to (..., K) float32."""
        return (features - self.mean) @ self.matrix


@dataclasses.dataclass(frozen=True)
class Pool:
    """Images with their targets.

    Attributes:
        images: (N, H, W, 3) uint8.
        targets: (N, H/16, W/16, K) float16.
    """

    images: np.ndarray
    targets: np.ndarray


def draw_images(
    photographs: list[np.ndarray], count: int, size: int, seed: tuple[int, ...], label: str = "draw"
) -> np.ndarray:
    """`count` training images, (count, size, size, 3) uint8; each depends on seed and index."""
    images = np.empty((count, size, size, 3), np.uint8)
    for index in track(range(count), label):
        images[index] = draw_image(np.random.default_rng((*seed, index)), photographs, size)
    return images


def extract_features(
    extractor: Extractor, images: np.ndarray, label: str = "extract", batch: int = 16
) -> np.ndarray:
    """Raw features of a pool's images, (N, H/16, W/16, C) float16."""
    starts = track(range(0, len(images), batch), label, unit="batch")
    return np.concatenate([extractor(images[i : i + batch]).astype(np.float16) for i in starts])


def fit_whitening(features: np.ndarray, components: int, share: float, seed: int) -> Whitening:
    """A whitening from up to 200 000 positions of (N, h, w, C)."""
    flat = features.reshape(-1, features.shape[-1])
    chosen = np.random.default_rng(seed).permutation(len(flat))[:200_000]
    return Whitening.fit(flat[chosen], components, share)


def whiten(features: np.ndarray, whitening: Whitening, batch: int = 64) -> np.ndarray:
    """Features (N, h, w, C) of a pool as targets, (N, h, w, K) float16."""
    # Batch by batch: a float32 copy of all features would be larger than everything else.
    parts = (features[i : i + batch] for i in range(0, len(features), batch))
    return np.concatenate([whitening(p.astype(np.float32)).astype(np.float16) for p in parts])
