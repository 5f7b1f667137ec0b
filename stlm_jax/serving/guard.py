"""Around all of the application: who may ask, what every answer says, what is counted."""

import hmac
import time

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stlm_jax.serving.metrics import Metrics

FREE = frozenset({"/", "/page.css", "/page.js", "/healthz", "/readyz"})  # of the token
_COUNTED = FREE | {"/v1/predict", "/v1/predict/batch", "/v1/models", "/metrics", "/openapi.json"}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class Guard:
    """An application behind a token, or behind none where `token` is None."""

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics):
        """Nothing that a request says of itself names a count but its path, if that is known."""
        self._app, self._metrics = app, metrics
        self._expected = None if token is None else f"bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application's call."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begin, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if scope["path"] in FREE or self._may(scope):
                await self._app(scope, receive, answer)
            else:
                refusal = JSONResponse(
                    {"error": "give the server's token, Authorization: Bearer TOKEN"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, answer)
        finally:
            endpoint = scope["path"] if scope["path"] in _COUNTED else "other"
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - begin)

    def _may(self, scope: Scope) -> bool:
        if self._expected is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # In constant time, so that the time tells nothing of the token.
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._expected)
