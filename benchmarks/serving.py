"""How fast a server answers: `python -m benchmarks.serving [MODEL] [--clients=N] [--requests=N]`.

Starts the server of `stlm_jax.commands.serve` as a process of its own and has clients, each with
one connection, send images of noise as JPEG, one after the other. MODEL is what the server takes;
default: the student that ships with the package, at 256 px, which knows no product yet.
`--size` is the side of the images that are sent. What a client waits is printed, and how many
images shared a call of the model.
"""

import argparse
import http.client
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

STUDENT = Path(__file__).parents[1] / "stlm_jax/assets/demo_student.safetensors"


def images(count: int, size: int) -> list[bytes]:
    """JPEGs of smooth noise."""
    rng, contents = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    return contents


def start(model: str, options: list[str]) -> tuple[subprocess.Popen, int]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "stlm_jax.commands.serve", model, "--port=0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    port = 0
    for line in process.stderr:
        print(line, end="")
        if address := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            port = int(address[1])
        if line == "ready\n":
            break
    else:
        sys.exit(process.wait())
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return process, port


def ask(connection: http.client.HTTPConnection, image: bytes) -> float:
    """Seconds that a client waits for an answer."""
    begin = time.perf_counter()
    connection.request("POST", "/v1/predict", image, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {text.decode()}")
    return time.perf_counter() - begin


def load(port: int, clients: int, requests: int, contents: list[bytes]) -> str:
    """What so many clients see, in a line."""
    waits: list[float] = []

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(first, requests, clients):
            waits.append(ask(connection, contents[number % len(contents)]))
        connection.close()

    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    seconds = time.perf_counter() - begin
    cuts = [1000 * cut for cut in statistics.quantiles(waits, n=100)]
    return (
        f"{clients:3d} clients, {len(waits)} requests: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} "
        f"ms, {len(waits) / seconds:.1f} images/s"
    )


def shared(port: int) -> str:
    """How many images a call of the model had, so far, in the mean."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    total, count = (
        float(re.findall(rf"^stlm_batch_size_{name}{{.*}} (\S+)", text, re.MULTILINE)[0])
        for name in ("sum", "count")
    )
    return f"{total / count:.2f} images a call of the model"


def main() -> None:
    """Prints a line for one client and one for many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(STUDENT))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--max_batch", type=int, default=8)
    parser.add_argument("--max_wait_ms", type=float, default=5)
    arguments = parser.parse_args()
    options = [f"--{name}={getattr(arguments, name)}" for name in ("max_batch", "max_wait_ms")]
    options += ["--image_size=256"] * (arguments.model == str(STUDENT))
    process, port = start(arguments.model, options)
    try:
        contents = images(16, arguments.size)
        print(f"{len(os.sched_getaffinity(0))} cores, JPEGs of {arguments.size} px, {options}")
        for clients, requests in (
            (1, arguments.requests // 10),
            (arguments.clients, arguments.requests),
        ):
            print(load(port, clients, requests, contents))
        print(shared(port))
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"the server ended with {process.wait()}")


if __name__ == "__main__":
    main()
