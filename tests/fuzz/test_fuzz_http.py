"""Requests that are none, raw on the socket: 4xx, while others are answered and none is lost."""

import json
import os
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from damage import damaged
from hypothesis import example, given
from hypothesis import strategies as st
from outcome import _count, budget
from stand_in_model import StandIn, ask, form, png, served, service_of
from starlette.testclient import TestClient

from stlm_jax.serving.app import make_app

IMAGE = png(90)
SCORE = 90 / 255
LIMITS = {"max_upload_mb": 0.05, "max_pixels": 5000, "timeout_s": 2.0, "queue": 64}


@pytest.fixture(scope="module")
def service():
    return service_of(StandIn(), StandIn(calibrated=False), **LIMITS)


@pytest.fixture(scope="module")
def port(service):
    """A server beside whose fuzzed requests another client asks all the time."""
    wrong, asked, stop = [], [0], threading.Event()
    with served(service) as found, ThreadPoolExecutor(1) as pool:

        def others():
            while not stop.wait(0.05):
                status, _, answer = ask(found, body=IMAGE)
                asked[0] += 1
                if status != 200 or abs(json.loads(answer)["score"] - SCORE) > 1e-6:
                    wrong.append((status, answer))

        work = pool.submit(others)
        yield found
        stop.set()
        work.result(60)
        assert asked[0] > 0 and wrong == []
        assert ask(found, "/readyz")[0] == 200
        taken = re.search(rb"^stlm_images_in_progress (\S+)", ask(found, "/metrics")[2], re.M)
        assert taken and float(taken[1]) == 0  # every place was given back


TOKENS = st.sampled_from([
    "/v1/predict", "/v1/predict/batch", "/v1/models", "/healthz", "/", "*", "//x", "/../etc/passwd",
    "/%2e%2e/", "http://x/v1/predict", "/v1/predict?model=../../etc", "/v1/predict?side=9999999999",
    "/v1/predict?model=%00", "/v1/predict?model=m1&model=m1", "/v1/predict?side=16&side=x", "?", "",
    "/v1/predict?" + "a=b&" * 300, "/" + "a" * 9000, "/v1/predict?model=%ff%fe", "/\x7f", "/x",
])  # fmt: skip
METHODS = st.sampled_from(
    ["POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "TRACE", "post", "P ST"]
)
FORM, KIND = form([("a.png", IMAGE), ("b.png", IMAGE)])
ONE, ONE_KIND = form([("a.png", IMAGE)], "image")
KINDS = st.sampled_from([
    "image/png", KIND, ONE_KIND, "multipart/form-data", "multipart/form-data; boundary=",
    "multipart/form-data; boundary=" + "x" * 300, 'multipart/form-data; boundary="a', "text/plain",
    "multipart/form-data; boundary=\xff", "application/json", "", "image/", "a" * 5000, ";;;=",
    "application/octet-stream", "MULTIPART/FORM-DATA; BOUNDARY=d1d7c2a0", "application/x-www-form-"
    "urlencoded", "multipart/form-data; boundary=d1d7c2a0; charset=utf-7",
])  # fmt: skip
ACCEPTS = st.one_of(
    st.sampled_from(["*/*", "image/png;q=nan", "application/json;q=2,*/*;q=-1", "," * 2000,
                     "a/b;" * 800, "image/*;q=1e999", "application/x-stlm-map", ";q=1", "q"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)  # fmt: skip
HEADERS = st.lists(st.tuples(
    st.sampled_from(["X-A", "Host", "Expect", "Connection", "Upgrade", "Range", "Cookie", "Origin",
                     "Content-Encoding", "Authorization", "Content-Type", "Content-Length"]),
    st.sampled_from(["x", "", "100-continue", "close", "websocket, h2c", "bytes=0-99999", "gzip",
                     "Bearer " + "x" * 3000, "0", "-1", "1e3", "5, 5", "\x01", "a\r b", "\xff"]),
), max_size=3)  # fmt: skip
LENGTHS = st.sampled_from(["right", "right", "right", "short", "long", "none", "junk", "huge",
                           "chunked", "bad chunks", "both"])  # fmt: skip


@st.composite
def requests(draw) -> tuple[list[bytes], bool]:
    """The parts of a request, to be sent one after the other, and whether the sender leaves."""
    body = draw(st.sampled_from([IMAGE, FORM, ONE, b"", b"{}", b"[" * 5000, b"\0" * 300]))
    if draw(st.booleans()):
        body = draw(damaged(body)) if body else b"x"
    kind, length = draw(KINDS), draw(LENGTHS)
    lines = [f"{draw(METHODS)} {draw(TOKENS)} HTTP/{draw(st.sampled_from(['1.1', '1.0', '9']))}",
             "Host: x", f"Content-Type: {kind}", f"Accept: {draw(ACCEPTS)}"]  # fmt: skip
    lines += [f"{name}: {value}" for name, value in draw(HEADERS)]
    told = {"right": len(body), "short": len(body) // 2, "long": len(body) + 40, "junk": "x1",
            "huge": 10**17, "both": len(body)}.get(length)  # fmt: skip
    if told is not None:
        lines.append(f"Content-Length: {told}")
    if length in ("chunked", "bad chunks", "both"):
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        if length == "bad chunks":
            body = draw(damaged(body))
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    if draw(st.integers(0, 5)) == 0:
        head = draw(damaged(head))
    whole = head + body
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return parts, draw(st.booleans())


def sent(port, parts, leaves) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
            if leaves:
                return b""
            connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                answer += received
        except OSError:  # the server has answered and hung up
            pass
        return answer


@budget(60, 3000)
@given(one=requests())
def test_a_raw_request(port, one):
    answer = sent(port, *one)
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    _count("http", str(statuses[0] if statuses else "no answer"))
    assert all(status < 500 or status in (503, 504) for status in statuses), answer[-600:]


@budget(10, 500)
@given(one=st.binary(max_size=600))
def test_bytes_that_are_no_request(port, one):
    answer = sent(port, [one], False)
    _count("http", "junk")
    assert not re.search(rb"HTTP/1\.[01] 5", answer)


def test_a_slow_body_is_ended(port):
    """It holds one place for the time of a request, and no other client waits for it."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + b"\r\n\r\n" + IMAGE[:20])
        assert ask(port, body=IMAGE)[0] == 200
        assert b" 504 " in connection.recv(65536)


# --- within the application, where an exception would be seen ---


@pytest.fixture(scope="module")
def client(service):
    with TestClient(make_app(service)) as found:
        yield found


NAMES = st.one_of(st.text(max_size=40), st.sampled_from(
    ["../../etc/passwd", "default/../m1", "m1\0", "M1", " m1", "m1 ", "%2e%2e", "\u202e1m"]
))  # fmt: skip
FIELDS = st.one_of(st.sampled_from(["image", "images"]), st.text(max_size=9))


@budget(50, 3000)
@given(
    model=st.none() | NAMES, side=st.none() | st.one_of(st.integers(), st.floats(), NAMES),
    accept=ACCEPTS, batch=st.booleans(), data=st.data(),
    names=st.lists(st.tuples(FIELDS, st.text(min_size=1, max_size=30)), max_size=4),
)  # fmt: skip
@example(model=None, side=None, accept="*/*", batch=True, data=None, names=[("images", "a\nb")])
def test_an_answer_is_a_result_or_an_error(client, model, side, accept, batch, data, names):
    """What a form may hold: any names, any content, any parameters."""
    files = [
        (field, (name, IMAGE if data is None else data.draw(st.just(IMAGE) | damaged(IMAGE))))
        for field, name in names
    ]
    given_ = {k: v for k, v in (("model", model), ("side", side)) if v is not None}
    path = "/v1/predict/batch" if batch else "/v1/predict"
    answer = client.post(path, params=given_, files=files or None, headers={"accept": accept})
    _count("form", str(answer.status_code))
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"] and "\n" not in answer.json()["error"]
    elif batch:
        assert len(answer.json()) == sum(field in ("image", "images") for field, _ in names)
        for item in answer.json():
            assert (item["result"] is None) != (item["error"] is None)
            assert item["result"] is None or item["result"]["score"] >= 0


def test_the_server_has_no_descriptors_left_open(port):
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sent(port, [b"POST /v1/predict HTTP/1.1\r\n"], True)
        ask(port, body=IMAGE)
    assert len(os.listdir("/proc/self/fd")) < count + 20
