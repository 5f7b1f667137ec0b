"""What OpenAPI says beyond what FastAPI knows: bodies, media types, errors, the token."""

from typing import Any

from fastapi import FastAPI

from stlm_jax.data.memory_file import FORMATS
from stlm_jax.serving.answers import JSON, MAP, OVERLAY, Error
from stlm_jax.serving.metrics import CONTENT_TYPE

RESULT = "STLM-Result"  # header of a picture
_BINARY = {"type": "string", "format": "binary"}
_MEANINGS = {
    401: "the token is missing or wrong",
    404: "no model of this name",
    406: "none of the media types that are offered is accepted",
    413: "too many bytes or pixels",
    415: f"neither a form nor an image, or none of {', '.join(FORMATS)}",
    422: "an empty or damaged image, a form without one, or a wrong parameter",
    429: "too many images at once; Retry-After says when to come again",
    500: "a score that is not finite, or a failure of the server",
    503: "the models are being loaded; Retry-After says when to come again",
    504: "no answer in time",
}
_RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "model": Error,
            "description": _MEANINGS[status],
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in statuses
    }


GUARDED = _errors(401, 503)
READY = _errors(503)
METRICS: dict[int | str, dict[str, Any]] = {
    **_errors(401),
    200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}, "description": "the counts"},
}
BATCH = _errors(*(status for status in _MEANINGS if status != 406))
PREDICT: dict[int | str, dict[str, Any]] = {
    **_errors(*_MEANINGS),
    200: {
        "description": (
            "The result. A picture is of the image's own size, or smaller where `side` is given, "
            f"and bears the result without its regions in the header {RESULT}, as JSON."
        ),
        "headers": {RESULT: {"description": "of a picture", "schema": {"type": "string"}}},
        "content": {
            JSON: {},
            OVERLAY: {"schema": {**_BINARY, "description": "the map over the image, a PNG"}},
            MAP: {
                "schema": {
                    **_BINARY,
                    "description": "the map as a PNG of 16-bit grey, 65535 where it is 1",
                }
            },
        },
    },
}


def _body(form: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, **others},
        }
    }


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [field], "properties": {field: schema}}


ONE_IMAGE = _body(
    _form("image", _BINARY),
    **{
        kind: {"schema": _BINARY}
        for kind in ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")
    },
)
MANY_IMAGES = _body(_form("images", {"type": "array", "items": _BINARY, "minItems": 1}))


def require_token(app: FastAPI) -> None:
    """Has OpenAPI say that every path of it but the health endpoints wants a bearer token."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                if path not in ("/healthz", "/readyz"):
                    operation["security"] = [{"token": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
