"""What is too large, too many, damaged, no image, or none of the requester's business."""

import io
import json
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from stand_in_model import SIDE, StandIn, ask, form, png, served, service_of

from stlm_jax.data.images import open_rgb

MAX = 20_000  # bytes
PIXELS = 200_000


@pytest.fixture(scope="module")
def model():
    return StandIn()


@pytest.fixture(scope="module")
def port(model):
    with served(service_of(model, max_upload_mb=MAX / 1e6, max_pixels=PIXELS)) as found:
        yield found


def error_of(body):
    line = json.loads(body)["error"]
    assert list(json.loads(body)) == ["error"] and "\n" not in line and len(line) < 400
    return line


def saved(image, kind, **options):
    buffer = io.BytesIO()
    # Copies, for an image that was saved keeps what it was saved with.
    others = {"append_images": [x.copy() for x in options.pop("append_images", ())]}
    image.copy().save(buffer, kind, **options, **(others if "save_all" in options else {}))
    return buffer.getvalue()


def bomb(width, height, rows=None):
    """A PNG of few bytes whose header promises much, and keeps the promise for some rows."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * (rows or height), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def raw(port, head, chunks=(), half_close=False):
    """What the server answers to bytes, the last of which may find no reader."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        sent = 0
        try:
            for chunk in (head, *chunks):
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while not (b"\r\n\r\n" in answer and answer.endswith(b"}")):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
    return answer, sent


def head(path="/v1/predict", kind="image/png", **headers):
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def test_too_many_bytes_are_refused_before_they_are_sent(port):
    answer, _ = raw(port, head(Content_Length=10**9))
    assert b" 413 " in answer and b"more than 20000 bytes" in answer
    assert ask(port, body=bytes(MAX + 1))[0] == 413


def test_a_chunked_body_is_counted_as_it_comes(port):
    """It would never end: the answer comes while there is more."""
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    answer, sent = raw(port, head(Transfer_Encoding="chunked"), [chunk] * 12)
    assert b" 413 " in answer and sent > MAX
    body, kind = form([("a.png", bytes(MAX))], "image")
    unended = [b"%x\r\n%s\r\n" % (len(body), body), *[chunk] * 12]
    answer, _ = raw(port, head(kind=kind, Transfer_Encoding="chunked"), unended)
    assert b" 413 " in answer


def test_a_length_that_lies(port):
    image = png(30)
    answer, _ = raw(port, head(Content_Length=len(image) - 30), [image])  # longer than it says
    assert b" 422 " in answer and b"cannot read the image" in answer
    # Shorter than it says: there is nobody to answer, and the server goes on.
    raw(port, head(Content_Length=len(image) + 9), [image], half_close=True)
    answer, _ = raw(port, head(Content_Length="-5"), [image])
    assert b" 400 " in answer
    assert ask(port, body=image)[0] == 200


def test_as_much_as_is_allowed_is_taken(port):
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3))
    image = png(noise)
    padded = image + bytes(MAX - len(image))
    assert len(image) < MAX and ask(port, body=padded)[0] == 200
    body, kind = form([("a.png", padded)], "image")
    assert ask(port, body=body, Content_Type=kind)[0] == 200
    body, kind = form([("a.png", padded + b"x")], "image")
    assert ask(port, body=body, Content_Type=kind)[0] == 413


def test_limits_of_a_batch(port):
    body, kind = form([("small.png", png(1)), ("large.png", png(2) + bytes(MAX))])
    status, _, answer = ask(port, "/v1/predict/batch", body, Content_Type=kind)
    small, large = json.loads(answer)
    assert status == 200 and small["result"] and "20000 bytes" in large["error"]
    body, kind = form([("a.png", bytes(10 * MAX))])
    assert ask(port, "/v1/predict/batch", body, Content_Type=kind)[0] == 413
    body, kind = form([("a.png", b"x")] * 101)
    status, _, answer = ask(port, "/v1/predict/batch", body, Content_Type=kind)
    assert status == 422 and "100" in error_of(answer)


@pytest.mark.parametrize("width, height", [(60_000, 50_000), (20_000, 11), (1000, 201)])
def test_too_many_pixels_are_refused_by_the_header(port, model, width, height, monkeypatch):
    body = bomb(width, height, rows=11)
    monkeypatch.setattr("stlm_jax.serving.uploads.open_rgb", None)  # nothing is decoded
    model.calls.clear()
    status, _, answer = ask(port, body=body)
    assert status == 413 and "pixels" in error_of(answer) and model.calls == []


def test_a_compressed_image_within_the_limit_is_decoded(port):
    assert ask(port, body=bomb(1000, 200))[0] == 200


def kinds():
    """Images that people have: name, content, whether PIL calls it by another name."""
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (30, 40), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [rgb.rotate(90 * i) for i in range(3)]
    yield "jpeg", saved(rgb, "JPEG")
    yield "jpeg, cmyk", saved(rgb.convert("CMYK"), "JPEG")
    yield "jpeg, turned", saved(rgb, "JPEG", exif=turned)
    yield "jpeg, of two cameras", saved(rgb, "MPO", save_all=True, append_images=frames[1:])
    yield "png, 16 bits", saved(wide, "PNG")
    yield "png, palette", saved(rgb.convert("P"), "PNG")
    yield "png, transparent", saved(rgb.convert("RGBA"), "PNG")
    yield "png, animated", saved(rgb, "PNG", save_all=True, append_images=frames[1:])
    yield "tiff, 16 bits", saved(wide, "TIFF")
    yield "tiff, of pages", saved(rgb, "TIFF", save_all=True, append_images=frames[1:])
    yield "tiff, float", saved(Image.fromarray(rng.random((30, 40), np.float32)), "TIFF")
    yield "bmp", saved(rgb, "BMP")
    yield "webp", saved(rgb, "WEBP", lossless=True)
    yield "webp, animated", saved(rgb, "WEBP", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("name, content", list(kinds()), ids=lambda x: x if type(x) is str else "")
def test_images_are_read_as_files_are(port, name, content, tmp_path):
    status, _, answer = ask(port, body=content, Content_Type="application/octet-stream")
    assert status == 200, answer
    path = tmp_path / "image"
    path.write_bytes(content)
    expected = np.asarray(open_rgb(path).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    found = json.loads(answer)
    assert found["score"] == pytest.approx(expected[..., 0].mean() / 255, rel=1e-5)
    turned = "turned" in name
    assert (found["width"], found["height"]) == ((30, 40) if turned else (40, 30))


@pytest.mark.parametrize(
    "body, status, line",
    [
        (b"", 422, "is empty"),
        (b"hello, world" * 50, 415, "none of PNG"),
        (png(8)[:-30], 422, "cannot read"),
        (saved(Image.effect_noise((90, 90), 60), "JPEG")[:2000], 422, "cannot read"),
        (png(8)[:10], 415, "none of PNG"),
        (saved(Image.new("RGB", (9, 9)), "GIF"), 415, "none of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", 415, "none of"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "none of"),
        (b"II*\x00" + bytes(60), 415, "none of"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(40), 422, "cannot read"),
    ],
)
def test_what_is_no_image(port, body, status, line):
    for kind, sent in (("image/png", body), (None, form([("x.png", body)], "image"))):
        sent, kind = (sent, kind) if kind else sent
        found, _, answer = ask(port, body=sent, Content_Type=kind)
        assert found == status and line in error_of(answer), answer


@pytest.mark.parametrize(
    "kind, body, status, line",
    [
        ("text/plain", b"x", 415, "multipart/form-data"),
        ("application/x-www-form-urlencoded", b"image=x", 415, "multipart/form-data"),
        ("multipart/form-data", b"x", 422, "boundary"),
        ("multipart/form-data; boundary=a", b"garbage", 422, "form"),
        ("multipart/form-data; boundary=a", b"", 422, "form"),
        ("multipart/form-data; boundary=a",
         b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--a--\r\n',
         422, "no file in a field called image"),
        ("multipart/form-data; boundary=a",
         b'--a\r\nContent-Disposition: form-data; name="other"; filename="x"\r\n\r\nx\r\n--a--\r\n',
         422, "no file in a field called image"),
    ],
)  # fmt: skip
def test_what_is_no_request(port, kind, body, status, line):
    found, _, answer = ask(port, body=body, Content_Type=kind)
    assert found == status and line in error_of(answer), answer


def test_no_path_is_taken_from_a_request(port, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(200))
    for name in (str(secret), "../../etc/passwd", "..%2f..%2fetc", "m1", "default/../m1", "\u0000"):
        from urllib.parse import quote

        status, _, answer = ask(port, f"/v1/predict?model={quote(name, safe='')}", png(1))
        assert status == 404 and "default" in error_of(answer)
    body, kind = form([(str(secret), png(1)), ("../../x\n.png", b"")])
    first, second = json.loads(ask(port, "/v1/predict/batch", body, Content_Type=kind)[2])
    assert first["result"]["score"] < 0.1  # of what was sent, not of the file of that name
    assert first["file"] == str(secret) and second["error"]
    for path in ("/page/../app.py", "/../app.py", "/%2e%2e/app.py", "/page.css/../app.py",
                 "/static/page.js", "/index.html", "//etc/passwd"):  # fmt: skip
        assert ask(port, path)[0] == 404
    assert secret.read_bytes() == png(200) and [p.name for p in tmp_path.iterdir()] == [secret.name]


def test_parameters_and_paths(port):
    assert ask(port, "/v1/predict?side=2", png(1))[0] == 422
    status, _, answer = ask(port, "/v1/predict?side=x", png(1))
    assert status == 422 and "side" in error_of(answer)
    status, headers, answer = ask(port, "/v1/predict")
    assert status == 405 and error_of(answer) and headers["Allow"] == "POST"
    for path in ("/docs", "/redoc", "/v2"):
        assert ask(port, path)[0] == 404
