"""Pictures as the bytes of a file."""

import io
from typing import Any

import numpy as np
from PIL import Image


def encode(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """A picture, or an array that PIL makes one of, as a file's content; `options` are PIL's."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
