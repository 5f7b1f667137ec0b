"""From a request's body to images: how many bytes, what kind, how many pixels, then decoding."""

import io
from collections.abc import Collection

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from stlm_jax.data.images import ImageError, open_rgb
from stlm_jax.data.memory_file import FORMATS, MemoryFile
from stlm_jax.data.reader import ImageReader, View
from stlm_jax.runtime.errors import first_line
from stlm_jax.runtime.text import printable
from stlm_jax.serving.errors import Refused

FIELD, FIELDS = "image", ("images", "image")  # of one, of many
MOST_IMAGES = 100  # of a batch
BATCH_UPLOADS = 10  # a batch's body has so many times the bytes of an image's
_FORM_BYTES = 10_000  # of a form around an image
_FORM = "multipart/form-data"
_RAW = "application/octet-stream"
_KINDS = "PNG, JPEG, BMP, TIFF, WebP"
_NAME_LENGTH = 200


async def one_image(request: Request, max_bytes: int) -> MemoryFile:
    """The image of a request: its body, or the file in the form's field `image`."""
    kind = _kind(request)
    if kind == _FORM:
        form = await _form(_counted(request, max_bytes + _FORM_BYTES), most=1)
        try:
            found = _files(form, (FIELD,))
            if not found:
                raise Refused(422, f"the form holds no file in a field called {FIELD}")
            return await read(found[0], max_bytes)
        finally:
            await form.close()
    if kind == _RAW or kind.startswith("image/"):
        return MemoryFile("the image", await _counted(request, max_bytes).body())
    raise Refused(
        415,
        f"content type {printable(kind)[:80] or '(none)'}: send a {_FORM} with a file in the field "
        f"{FIELD}, or an image with its type, such as image/png",
    )


async def many_images(request: Request, max_bytes: int) -> list[UploadFile]:
    """The files of a form's fields `images`, to be taken by `read` and closed."""
    if _kind(request) != _FORM:
        raise Refused(415, f"send a {_FORM} with files in the field {FIELDS[0]}")
    form = await _form(_counted(request, max_bytes * BATCH_UPLOADS), MOST_IMAGES)
    found = _files(form, FIELDS)
    if not found:
        await form.close()
        raise Refused(422, f"the form holds no file in a field called {FIELDS[0]}")
    return found


def name_of(upload: UploadFile) -> str:
    """What a client calls a file: for messages, no path."""
    return printable(upload.filename or "")[:_NAME_LENGTH]


async def read(upload: UploadFile, max_bytes: int) -> MemoryFile:
    """An uploaded file's content."""
    if (upload.size or 0) > max_bytes:
        raise _too_large(max_bytes)
    return MemoryFile(name_of(upload) or "the image", await upload.read())


def check_header(file: MemoryFile, max_pixels: int) -> None:
    """Refuses what is no image, and what has too many pixels, before any is decoded."""
    if not file.content:
        raise Refused(422, f"{file} is empty: send an image")
    try:
        with Image.open(io.BytesIO(file.content), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        raise Refused(415, f"{file} is none of {_KINDS}: send one of these") from None
    except Image.DecompressionBombError:
        raise Refused(413, f"{file} has more than {max_pixels} pixels: send fewer") from None
    except Exception as error:  # decoders of damaged files raise a dozen unrelated types
        raise Refused(422, f"cannot read {file} as an image ({first_line(error)})") from None
    if width * height > max_pixels:
        raise Refused(
            413, f"{file} has {width}x{height} pixels, more than {max_pixels}: send fewer"
        )


def decoded(file: MemoryFile, depth: str) -> Image.Image:
    """The image, upright and RGB, as every other image of this program is read."""
    try:
        return open_rgb(file, depth)
    except ImageError as error:
        raise Refused(422, str(error)) from None


def view(file: MemoryFile, max_pixels: int, reader: ImageReader) -> tuple[View, tuple[int, int]]:
    """What the network sees of an image, and the image's own height and width."""
    check_header(file, max_pixels)
    image = decoded(file, reader.depth)
    return reader.view_of(image), (image.height, image.width)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _counted(request: Request, most: int) -> Request:
    """The request, whose body ends in a refusal as soon as it is too long, whatever it said."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise _too_large(most)
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        message = await request.receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large(most)
        return message

    return Request(request.scope, receive)


async def _form(request: Request, most: int) -> FormData:
    try:
        return await request.form(max_files=most, max_fields=most)
    except HTTPException as error:  # what python-multipart says of a damaged form
        raise Refused(422, f"the form cannot be read: {printable(error.detail)}") from None


def _files(form: FormData, fields: Collection[str]) -> list[UploadFile]:
    return [x for name, x in form.multi_items() if name in fields and isinstance(x, UploadFile)]


def _too_large(most: int) -> Refused:
    return Refused(413, f"more than {most} bytes: send a smaller image, or fewer")
