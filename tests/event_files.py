"""Reads TensorBoard's event files, to see what was written."""

import io
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image


def read(folder: pathlib.Path, pattern: str = "events.*"):
    """Of all event files: {(tag, step): scalar} and {(tag, step): (H, W, 3) uint8}."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    scalars, images = {}, {}
    for path in sorted(folder.glob(pattern)):
        for record in _records(path.read_bytes()):
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                if value.HasField("image"):
                    picture = Image.open(io.BytesIO(value.image.encoded_image_string))
                    images[value.tag, event.step] = np.asarray(picture.convert("RGB"))
                else:
                    scalars[value.tag, event.step] = value.simple_value
    return scalars, images


def _records(data: bytes):
    """TFRecord: length, its checksum, the record, its checksum."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += length + 16
