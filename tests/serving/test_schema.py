"""What OpenAPI promises is kept, for what schemathesis makes of it, without a socket."""

import collections

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import checks
from stand_in_model import StandIn, png, service_of
from starlette.testclient import TestClient
from test_limits import saved

from stlm_jax.serving.app import make_app

ERRORS = {"401", "404", "406", "413", "415", "422", "429", "500", "503", "504"}
ACCEPTED = ("application/json", "image/png", "application/x-stlm-map", "*/*", "text/html")
KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/bmp": "BMP", "image/tiff": "TIFF",
         "image/webp": "WEBP"}  # fmt: skip


def contents(kind):
    """Images of a kind, some with another end, and bytes that are none."""
    image = saved(Image.linear_gradient("L").resize((30, 20)).convert("RGB"), kind)
    cut = st.integers(0, len(image)).map(lambda end: image[:end])
    return st.one_of(st.just(image), st.just(image), cut, st.binary(max_size=200), st.just(png(13)))


for media_type, name in KINDS.items():
    schemathesis.openapi.media_type(media_type, contents(name))


@pytest.fixture(scope="module")
def app():
    service = service_of(StandIn(), StandIn(calibrated=False), max_upload_mb=0.1, max_pixels=5000)
    yield make_app(service)
    assert service.stop()


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_as_documented(app, mode):
    api = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) == 6
    seen = collections.Counter()
    for operation in operations:
        if mode is schemathesis.GenerationMode.POSITIVE or operation.method == "post":
            call_often(operation, mode, seen)
    # It has not only been refused; where data are to be wrong it has been, too.
    is_valid = mode is schemathesis.GenerationMode.POSITIVE
    # What is drawn depends on the modules that are imported, so no more is asked of wrong data.
    for status in (200, 404, 415, 422, 500) if is_valid else (422,):
        assert seen["/v1/predict", status], seen


def call_often(operation, mode, seen):
    @hypothesis.settings(
        max_examples=80 if operation.method == "post" else 5,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(mode), accept=st.sampled_from(ACCEPTED))
    def call(case, accept):
        case.headers = {**(case.headers or {}), "Accept": accept}
        response = case.call()
        seen[operation.path, response.status_code] += 1
        # No schema says whether bytes are an image; of a score that is not finite, 500 is due.
        left_out = [checks.not_a_server_error, checks.positive_data_acceptance]
        case.validate_response(response, excluded_checks=left_out)
        if response.status_code == 500:
            assert "not finite" in response.json()["error"]

    call()


def test_every_error_is_documented(app):
    paths = TestClient(app).get("/openapi.json").json()["paths"]
    assert set(paths["/v1/predict"]["post"]["responses"]) == ERRORS | {"200"}
    assert set(paths["/v1/predict/batch"]["post"]["responses"]) == ERRORS - {"406"} | {"200"}
    for path, methods in paths.items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status != "200":
                    assert list(answer["content"]) == ["application/json"], path
                    reference = answer["content"]["application/json"]["schema"]["$ref"]
                    assert reference.endswith("/Error")
