"""What the demo teacher learns: centred, partly whitened ImageNet features."""

import dataclasses
from typing import Protocol

import numpy as np

from stlm_jax.models.resize import interpolation_matrix
from stlm_jax.pretraining.images import draw_image
from stlm_jax.runtime.progress import track


class Extractor(Protocol):
    """`efficientnet_lite.EfficientNetLite0`, or anything that gives two strides."""

    def features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, H, W, 3) uint8 to features at strides 16 and 32."""


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
      targets: (N, H/16, W/16, K) float16, from the stages at stride 16.
      deeper: (N, H/16, W/16, K) float16, from the stage at stride 32, enlarged.
    """

    images: np.ndarray
    targets: np.ndarray
    deeper: np.ndarray


def enlarge(coarse: np.ndarray) -> np.ndarray:
    """Bilinear doubling of (N, h, w, C)."""
    rows = interpolation_matrix(coarse.shape[1], 2 * coarse.shape[1])
    columns = interpolation_matrix(coarse.shape[2], 2 * coarse.shape[2])
    return np.einsum("hi,wj,nijc->nhwc", rows, columns, coarse, optimize=True)


def draw_images(
    photographs: list[np.ndarray],
    count: int,
    size: int,
    seed: tuple[int, ...],
    label: str = "draw",
) -> np.ndarray:
    """`count` training images, (count, size, size, 3) uint8; each depends on seed and index."""
    images = np.empty((count, size, size, 3), np.uint8)
    for index in track(range(count), label):
        images[index] = draw_image(np.random.default_rng((*seed, index)), photographs, size)
    return images


def extract(
    extractor: Extractor,
    images: np.ndarray,
    batch: int = 16,
    label: str = "extract",
) -> tuple[np.ndarray, np.ndarray]:
    """Raw features of a pool at strides 16 and 32, float16."""
    parts = []
    for start in track(range(0, len(images), batch), label, unit="batch"):
        fine, coarse = extractor.features(images[start : start + batch])
        parts.append((fine.astype(np.float16), coarse.astype(np.float16)))
    fine_parts, coarse_parts = zip(*parts, strict=True)
    return np.concatenate(fine_parts), np.concatenate(coarse_parts)


def fit_whitening(features: np.ndarray, components: int, share: float, seed: int) -> Whitening:
    """A whitening from up to 200 000 positions of (N, h, w, C)."""
    flat = features.reshape(-1, features.shape[-1])
    chosen = np.random.default_rng(seed).permutation(len(flat))[:200_000]
    return Whitening.fit(flat[chosen], components, share)


def make_pool(
    raw: tuple[np.ndarray, np.ndarray, np.ndarray],
    whitenings: tuple[Whitening, Whitening],
    batch: int = 64,
) -> Pool:
    """(Images, features at stride 16, at stride 32) to a pool; `whitenings` in that order.

    It goes `batch` by `batch`, so that float32 copies stay small.
    """
    images, fine, coarse = raw

    def targets(features, whitening, after):
        return np.concatenate(
            [
                after(whitening(features[start : start + batch].astype(np.float32))).astype(
                    np.float16
                )
                for start in range(0, len(features), batch)
            ]
        )

    return Pool(
        images,
        targets(fine, whitenings[0], lambda x: x),
        targets(coarse, whitenings[1], enlarge),
    )
