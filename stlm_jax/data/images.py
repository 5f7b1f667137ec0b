"""Image files to arrays, and ground-truth files to masks."""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile as PilFile

from stlm_jax.config.rules import FILE
from stlm_jax.data.depth import is_wide, largest_of, raw_mode, sample_of, to_8_bits, wide_values
from stlm_jax.data.frames import TRANSPOSED, TURNS, Frame, fit, orientation
from stlm_jax.data.masks import AUTO, Mask, is_deep, mask_of
from stlm_jax.data.memory_file import FORMATS, MemoryFile
from stlm_jax.data.records import Record
from stlm_jax.data.tfds_file import StoredFile
from stlm_jax.data.threads import in_threads
from stlm_jax.runtime.errors import UserError, first_line
from stlm_jax.runtime.paths import path_of

# PIL warns of half of what it refuses; only the refusal, an ImageError, is for the user.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Of what is damaged beside the pixels it warns with a line of its own code.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

ImageFile = str | os.PathLike[str] | StoredFile | MemoryFile
_ONE_FILE = (str, os.PathLike, StoredFile, MemoryFile)
T = TypeVar("T")


class ImageError(UserError):
    """A file that cannot be read as an image; the text names it."""


class MaskSizeError(ImageError):
    """A ground truth that does not fit its image."""


def _open(path: ImageFile) -> PilFile:
    file = path if isinstance(path, (StoredFile, MemoryFile)) else path_of(path)
    # What a stranger sent is shown to the decoders of photographs only, not to all of PIL's.
    formats = FORMATS if isinstance(file, MemoryFile) else None
    try:
        opened = file if isinstance(file, Path) else io.BytesIO(file.read_bytes())
        image = Image.open(opened, formats=formats)
    except UnidentifiedImageError:  # PIL would name the buffer
        raise ValueError(f"cannot identify image file {str(path)!r}") from None
    # PIL maps an uncompressed TIFF into memory with its upright width, which garbles a turned one;
    # without a name it is read.
    image.filename = ""
    return image


def _narrowed(image: PilFile, path: ImageFile, depth: str) -> Image.Image:
    """A wide image that was just opened, of eight bits a channel and upright."""
    largest = largest_of(image.mode)
    values, alpha = wide_values(image, lambda: _open(path))
    turn = TURNS[orientation(image)]  # for which PIL loads a PNG
    narrow = Image.fromarray(np.ascontiguousarray(turn(to_8_bits(values, depth, largest))))
    if alpha is not None:
        narrow = narrow.convert("RGB")
        narrow.putalpha(Image.fromarray(np.ascontiguousarray(turn(alpha))))
    return narrow


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("RGB")


def _guarded(path: ImageFile, read: Callable[[], T]) -> T:
    # Decoders of damaged files raise a dozen unrelated types, from SyntaxError to struct.error.
    try:
        return read()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist: check the path") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} is too large or a decompression bomb ({str(error).split(', ')[0]}, PIL's): "
            "cut it into smaller images"
        ) from None
    except Exception as error:
        reason = first_line(error)
        raise ImageError(f"cannot read {path} as an image ({reason}): replace the file") from error


def open_rgb(path: ImageFile, depth: str = FILE) -> Image.Image:
    """An image file, decoded to RGB.

    EXIF orientation is applied; of several frames the first counts; palettes and CMYK are
    converted; transparent pixels are laid over black; values of more than eight bits are scaled to
    0..255 as `depth` says, see there: by default from the file's own minimum and maximum (a
    constant image becomes black).
    """

    def read() -> Image.Image:
        with _open(path) as image:
            if is_wide(image):
                return _to_rgb(_narrowed(image, path, depth))
            return _to_rgb(ImageOps.exif_transpose(image))

    return _guarded(path, read)


def wide_sample(path: ImageFile) -> np.ndarray | None:
    """Values of an image of more than eight bits, (n,) float32; None of any other."""

    def read() -> np.ndarray | None:
        with _open(path) as image:
            if not is_wide(image):
                return None
            return sample_of(wide_values(image, lambda: _open(path))[0])

    return _guarded(path, read)


def mode_of(path: ImageFile) -> str:
    """What PIL calls the kind of a file's pixels, `RGB`, `I;16`, `RGB;16B`; decodes none."""

    def read() -> str:
        with _open(path) as image:
            return raw_mode(image) if is_wide(image) and not is_deep(image) else image.mode

    return _guarded(path, read)


def frames_in(path: ImageFile) -> int:
    """How many images a file holds, as pages or an animation; a camera's previews do not count."""

    def read() -> int:
        with _open(path) as image:
            return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)

    return _guarded(path, read)


def read_image(path: ImageFile, size: int | None, depth: str = FILE) -> np.ndarray:
    """An image as `open_rgb` decodes it, (size, size, 3) uint8, or (H, W, 3) where `size` is None.

    It is resized bilinearly by PIL, as in the published code.
    """
    image = open_rgb(path, depth)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)


def read_mask(
    path: ImageFile | Sequence[ImageFile],
    size: int | None,
    rule: str = AUTO,
    image: ImageFile | None = None,
) -> np.ndarray:
    """A ground-truth file, or the union of several of one size, as a mask of 0 and 1.

    It is (size, size) uint8, or (H, W) where `size` is None. A resized pixel is anomalous where at
    least half of what it covers is.

    Args:
        path: the file or files.
        size: of the mask wanted.
        rule: what counts as anomalous, see `masks`.
        image: what they are the ground truth of, which they must fit.
    """
    paths = [path] if isinstance(path, _ONE_FILE) else list(path)
    masks = [read_mask_file(p, rule, image)[0].marked for p in paths]
    for other, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ImageError(f"{other} is not of the size of {paths[0]}: replace the file")
    union = np.logical_or.reduce(masks)
    shape = union.shape if size is None else (size, size)
    return resize_mask(union, shape).astype(np.uint8)


def read_mask_file(
    path: ImageFile, rule: str = AUTO, image: ImageFile | None = None
) -> tuple[Mask, str]:
    """One ground-truth file, upright, and what is to be said of its size; '' where it fits.

    `image` is what it belongs to: a mask of other proportions is refused, unless it has those of
    the image's pixels before they are turned as EXIF says; then it is turned likewise. An image
    that cannot be read is not compared with.
    """

    def read() -> tuple[Mask, int]:
        with _open(path) as file:
            kind, turned = file.format, orientation(file)
            return mask_of(ImageOps.exif_transpose(file), rule, kind), turned

    mask, turned = _guarded(path, read)
    try:
        frame = frame_of(image) if image is not None else None
    except ImageError:
        frame = None
    if frame is None:
        return mask, ""
    try:
        turn, remark = fit(mask.marked.shape, turned, frame)
    except ValueError as error:
        raise MaskSizeError(f"{path} {error}: replace it by one of its image's size") from None
    remark = remark and f"{path} {remark}"
    return Mask(turn(mask.values), turn(mask.marked), mask.classes), remark


def frame_of(path: ImageFile) -> Frame:
    """The frame of an image file; but for a PNG, decodes no pixel."""

    def read() -> Frame:
        with _open(path) as file:
            turned = orientation(file)
            # PIL turns a TIFF itself, and gives its upright size.
            is_swapped = turned >= TRANSPOSED and file.format != "TIFF"
            return Frame(file.size if is_swapped else file.size[::-1], turned)

    return _guarded(path, read)


def load_images(records: Sequence[Record], size: int, depth: str = FILE) -> np.ndarray:
    """The images of `records`, decoded in threads, (N, size, size, 3) uint8 in their order."""
    out = np.empty((len(records), size, size, 3), np.uint8)
    reads = in_threads(lambda record: read_image(record.image, size, depth), records)
    for index, pixels in enumerate(reads):
        out[index] = pixels
    return out


def load_masks(records: Sequence[Record], size: int, rule: str = AUTO) -> np.ndarray:
    """The masks of `records`, (N, size, size) uint8 in {0, 1}; zeros for a normal image."""
    out = np.zeros((len(records), size, size), np.uint8)
    for index, record in enumerate(records):
        if record.mask is not None:
            out[index] = read_mask(record.mask, size, rule, record.image)
    return out


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, H, W, 3) uint8 to (N, *size, 3), bilinearly by PIL as when a file is read."""
    if images.shape[1:3] == size:
        return images
    to = (size[1], size[0])
    return np.stack(
        [np.asarray(Image.fromarray(x).resize(to, Image.Resampling.BILINEAR)) for x in images]
    )


def resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An anomaly map (h, w) float32 to `size` = (height, width), bilinearly."""
    if values.shape == size:
        return values
    to = (size[1], size[0])
    return np.asarray(Image.fromarray(values).resize(to, Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (h, w) bool to `size` = (height, width): true where half of what is covered is."""
    return mask if mask.shape == size else resize_map(mask.astype(np.float32), size) >= 0.5
