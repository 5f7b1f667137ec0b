"""Many clients at once: nothing is lost, calls are shared, the queue is bounded, it ends well."""

import collections
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from stand_in_model import StandIn, ask, form, png, served, service_of

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS, REQUESTS = 16, 1000


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def metric(port, name):
    """A value of /metrics, by its name with labels."""
    text = ask(port, "/metrics")[2].decode()
    found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[0]) if found else 0.0


def test_a_thousand_requests_of_sixteen_clients(capsys):
    model = StandIn(delay=0.001)
    bodies = [png(value) for value in range(0, 250)]
    service = service_of(model)
    seconds, wrong = [], []

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(first, REQUESTS, CLIENTS):
            value = 100 if number % 250 in (13, 14) else number % 250
            begin = time.perf_counter()
            connection.request("POST", "/v1/predict", bodies[value], {"Content-Type": "image/png"})
            answer = connection.getresponse()
            found = json.loads(answer.read())
            seconds.append(time.perf_counter() - begin)
            if answer.status != 200 or abs(found["score"] - value / 255) > 1e-6:
                wrong.append((number, answer.status, found))
        connection.close()

    with served(service) as port:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))
        assert wrong == [] and len(seconds) == REQUESTS
        counted = 'stlm_requests_total{endpoint="/v1/predict",status="200"}'
        until(lambda: metric(port, counted) == REQUESTS)
        assert metric(port, 'stlm_batch_size_sum{model="default"}') == REQUESTS
        assert metric(port, "stlm_queue_length") == 0
        assert metric(port, "stlm_images_in_progress") == 0
    sizes = collections.Counter(model.calls)
    assert sum(model.calls) == REQUESTS and max(sizes) <= 8 and len(model.calls) < REQUESTS
    hundredths = [1000 * x for x in statistics.quantiles(seconds, n=100)]
    with capsys.disabled():
        print(f"\np50 {hundredths[49]:.1f} ms, p99 {hundredths[98]:.1f} ms, {dict(sizes)}")


def test_those_that_come_together_share_a_call():
    model = StandIn()
    service = service_of(model, max_wait_ms=2000, max_batch=4)
    with served(service) as port, ThreadPoolExecutor(4) as pool:
        begin = time.monotonic()
        found = list(pool.map(lambda value: ask(port, body=png(value)), range(20, 24)))
        assert [status for status, *_ in found] == [200] * 4 and model.calls == [4]
        assert time.monotonic() - begin < 2  # a full batch does not wait
    service = service_of(model, max_wait_ms=1)
    with served(service) as port:
        model.calls.clear()
        assert ask(port, body=png(1))[0] == 200 and model.calls == [1]


def test_models_are_not_mixed():
    first, second = StandIn(), StandIn(calibrated=False)
    with served(service_of(first, second)) as port, ThreadPoolExecutor(8) as pool:
        paths = [f"/v1/predict?model={name}" for name in ("default", "m1")] * 20
        found = list(pool.map(lambda path: json.loads(ask(port, path, png(9))[2]), paths))
    assert [x["model"] for x in found] == ["default", "m1"] * 20
    assert sum(first.calls) == sum(second.calls) == 20


def test_a_full_queue_is_429_and_nothing_that_was_taken_is_lost():
    model = StandIn()
    service = service_of(model, queue=3, max_batch=1)
    model.gate.clear()
    with served(service) as port, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, port, "/v1/predict", png(value)) for value in (1, 2, 3)]
        until(lambda: metric(port, "stlm_images_in_progress") == 3)
        assert metric(port, "stlm_queue_length") >= 2
        for path, (body, kind) in (
            ("/v1/predict", (png(4), "image/png")),
            ("/v1/predict/batch", form([("a.png", png(5))])),
        ):
            status, headers, answer = ask(port, path, body, Content_Type=kind)
            assert status == 429 and int(headers["Retry-After"]) >= 1
            assert "too many" in json.loads(answer)["error"]
        assert ask(port, "/healthz")[0] == ask(port, "/readyz")[0] == 200
        model.gate.set()
        assert [future.result()[0] for future in waiting] == [200] * 3
        assert ask(port, body=png(6))[0] == 200


def test_a_batch_takes_no_more_than_is_free():
    model = StandIn()
    with served(service_of(model, queue=2)) as port:
        body, kind = form([(f"{i}.png", png(i)) for i in range(7)])
        status, _, answer = ask(port, "/v1/predict/batch", body, Content_Type=kind)
        assert status == 200 and all(item["result"] for item in json.loads(answer))
        assert max(model.calls) <= 2 and sum(model.calls) == 7
        assert metric(port, "stlm_images_in_progress") == 0


def test_what_takes_too_long_is_504_and_is_dropped():
    model = StandIn()
    with served(service_of(model, timeout_s=0.3, max_batch=1)) as port:
        model.gate.clear()
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda value: ask(port, body=png(value)), (1, 2, 3)))
        assert [status for status, *_ in found] == [504] * 3
        assert "within 0.3 s" in json.loads(found[0][2])["error"]
        body, kind = form([("a.png", png(5))])
        assert ask(port, "/v1/predict/batch", body, Content_Type=kind)[0] == 504
        model.gate.set()
        until(lambda: metric(port, "stlm_queue_length") == 0)
        assert ask(port, body=png(4))[0] == 200
        assert len(model.calls) == 2  # one had begun, the others were never computed


def test_a_body_that_never_ends_is_504():
    with served(service_of(StandIn(), timeout_s=0.3)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"Content-Length: 999\r\n\r\nabc"
            )
            assert b" 504 " in connection.recv(65536)
        until(lambda: metric(port, "stlm_images_in_progress") == 0)


def test_those_that_wait_are_answered_at_the_end():
    model = StandIn()
    service = service_of(model, max_batch=2)
    model.gate.clear()
    with ThreadPoolExecutor(5) as pool:
        with served(service) as port:
            waiting = [pool.submit(ask, port, "/v1/predict", png(v)) for v in range(5)]
            until(lambda: metric(port, "stlm_images_in_progress") == 5)
            threading.Timer(0.5, model.gate.set).start()
        assert [future.result(1)[0] for future in waiting] == [200] * 5
    with pytest.raises(ConnectionRefusedError):
        ask(port)


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from stand_in_model import StandIn
from stlm_jax.runtime.exit_status import end, exit_status
from stlm_jax.serving.options import Options
from stlm_jax.serving.server import run
options = Options({{"default": "x"}}, port=0)
end(exit_status(lambda: run(options, lambda path: StandIn(delay=1)), "stopped"))
"""


def start():
    """A process of a slow stand-in, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(here=str(HERE))],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())[1])
    until(lambda: ask(port, "/healthz")[0] == 200)
    return process, port


def test_a_signal_ends_the_process_once_all_is_answered():
    process, port = start()
    assert ask(port, "/readyz")[0] == 503 and ask(port, body=png(1))[0] == 503
    until(lambda: ask(port, "/readyz")[0] == 200)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, port, "/v1/predict", png(v)) for v in range(3)]
        until(lambda: metric(port, "stlm_images_in_progress") == 3)
        process.send_signal(signal.SIGTERM)
        assert [future.result()[0] for future in waiting] == [200] * 3
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and said.endswith("stopped; every request was answered\n"), said


def test_while_models_are_compiled_it_ends_at_once():
    process, _ = start()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "Traceback" not in said and "ready\n" not in said


def test_a_second_signal_waits_for_nobody():
    process, port = start()
    until(lambda: ask(port, "/readyz")[0] == 200)
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Content-Length: 9\r\n\r\n"
        )
        until(lambda: metric(port, "stlm_images_in_progress") == 1)
        process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionError):
            until(lambda: ask(port, "/healthz")[0] != 200)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]  # the client would have had 30 s
    assert process.returncode == 130 and said.endswith("\nstopped\n"), said
