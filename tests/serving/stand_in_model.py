"""A model that answers at once and predictably, and a server of it in this process."""

import contextlib
import http.client
import io
import threading
import time

import numpy as np
from PIL import Image

from stlm_jax.inference.predict_views import ImageMaps
from stlm_jax.serving.options import Options
from stlm_jax.serving.server import listen, make_server
from stlm_jax.serving.service import Service
from stlm_jax.weights.description import Calibration, Description

SIDE = 32
THRESHOLD = 0.5


class StandIn:
    """Its map is the view's red channel over 255, its score the mean of that.

    Attributes:
        gate: calls wait while it is not set.
        calls: how many images each had.
    """

    def __init__(self, calibrated=True, delay=0.0, category="disc"):
        known = Calibration(THRESHOLD, 0.1, THRESHOLD, "held_out", 9) if calibrated else None
        self.description = Description(category, SIDE, calibration=known)
        self.delay, self.calls, self.gate = delay, [], threading.Event()
        self.gate.set()

    def views(self, views):
        views = list(views)
        self.gate.wait()
        time.sleep(self.delay)
        self.calls.append(len(views))
        for view in views:
            anomaly_map = view.pixels[..., 0].astype(np.float32) / np.float32(255)
            if (view.pixels[..., 0] == 13).all():
                anomaly_map = np.full_like(anomaly_map, np.nan)
            if (view.pixels[..., 0] == 14).all():
                raise ValueError("a defect of the program")
            yield ImageMaps(anomaly_map, anomaly_map.mean())


def service_of(*models, **options):
    """A service of stand-ins, called `default`, `m1`, `m2`, …; it is ready."""
    names = ["default", *(f"m{i}" for i in range(1, len(models)))]
    known = dict(zip(names, models, strict=True))
    service = Service(Options({name: name for name in names}, **options), known.__getitem__)
    service.start()
    deadline = time.monotonic() + 30
    while not service.ready:
        assert service.failure is None and time.monotonic() < deadline
        time.sleep(0.002)
    for model in models:
        model.calls.clear()
    return service


@contextlib.contextmanager
def served(service, token=None):
    """The port of a service, served by uvicorn in a thread; afterwards it has stopped in order."""
    opened = listen("127.0.0.1", 0)
    server = make_server(service, token)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    port = opened.getsockname()[1]
    thread.start()
    try:
        while not server.started:
            time.sleep(0.002)
        yield port
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive() and service.stop()


def png(pixels, **options):
    """A PNG of an array, or of one grey or colour in 40x30 pixels."""
    array = np.asarray(pixels, np.uint8)
    if array.ndim < 2:
        array = np.broadcast_to(array, (30, 40, 3)).copy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def ask(port, path="/v1/predict", body=None, method=None, **headers):
    """Status, headers and body of a request by http.client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        headers.setdefault("Content-Type", "image/png")
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def form(parts, field="images"):
    """Body and content type of a form with files, (name, content) each."""
    boundary = "d1d7c2a0"
    body = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (boundary.encode(), field.encode(), name.encode(), content)
        for name, content in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
