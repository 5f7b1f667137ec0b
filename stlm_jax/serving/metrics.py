"""What `/metrics` counts, in Prometheus's text format."""

from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counts of one server."""

    def __init__(self, waiting: Callable[[], int], in_house: Callable[[], int]):
        """`waiting` says how many images wait for a model, `in_house` how many places are taken."""
        disable_created_metrics()  # when a count began is nobody's question here
        self._registry = CollectorRegistry()
        named: Any = {"registry": self._registry}
        self.requests = Counter(
            "stlm_requests", "Requests answered", ("endpoint", "status"), **named
        )
        self.seconds = Histogram(
            "stlm_request_seconds",
            "From a request's arrival to the end of its answer",
            ("endpoint",),
            buckets=_SECONDS,
            **named,
        )
        self.verdicts = Counter("stlm_images", "Images judged", ("model", "verdict"), **named)
        self.batch_size = Histogram(
            "stlm_batch_size",
            "Images in a call of the model",
            ("model",),
            buckets=(1, 2, 4, 8),
            **named,
        )
        self.model_seconds = Histogram(
            "stlm_model_seconds", "A call of the model", ("model",), buckets=_SECONDS, **named
        )
        Gauge("stlm_queue_length", "Images that wait for a model", **named).set_function(waiting)
        Gauge(
            "stlm_images_in_progress", "Images received, waiting or being answered", **named
        ).set_function(in_house)

    def called(self, model: str, images: int, seconds: float) -> None:
        """Counts a call of a model."""
        self.batch_size.labels(model).observe(images)
        self.model_seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
