"""The routes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp

from stlm_jax import __version__
from stlm_jax.serving import answers, documented, uploads
from stlm_jax.serving.accept import wanted
from stlm_jax.serving.answers import JSON, KINDS
from stlm_jax.serving.errors import Refused, not_ready
from stlm_jax.serving.guard import Guard
from stlm_jax.serving.metrics import CONTENT_TYPE
from stlm_jax.serving.service import Service

_PAGE = Path(__file__).with_name("page")
_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_SIDE = 20_000
_log = logging.getLogger(__name__)

# Absent, or a value: a request cannot say null.
Model = Annotated[
    str | SkipJsonSchema[None], Query(description="its name; default: the first model")
]
Side = Annotated[
    int | SkipJsonSchema[None],
    Query(ge=16, le=_SIDE, description="longer side of a picture, at most; pixels"),
]


def make_app(service: Service, token: str | None = None) -> ASGIApp:
    """The application of a service, whose requests must bear `token` where it is not None."""
    app = FastAPI(
        title="stlm_jax",
        version=__version__,
        description='Finds anomalies in images. Errors are JSON, {"error": one line}.',
        docs_url=None,  # its page would come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_errors(app)
    _add_prediction(app, service)
    _add_state(app, service)
    _add_page(app)
    if token is not None:
        documented.require_token(app)
    return Guard(app, token, service.metrics)


def _add_prediction(app: FastAPI, service: Service) -> None:
    options = service.options

    @app.post(
        "/v1/predict",
        responses=documented.PREDICT,
        openapi_extra=documented.ONE_IMAGE,
        response_model=answers.FullResult,
    )
    async def predict(request: Request, model: Model = None, side: Side = None) -> Response:
        """Looks at an image; Accept says whether numbers, an overlay or the map is wanted."""
        begin = time.perf_counter()
        name, network = service.model(model)
        kind = wanted(request.headers.get("accept", ""), KINDS)
        if kind is None:
            raise Refused(406, f"accept one of {', '.join(KINDS)}")
        with service.places():
            async with service.in_time():
                file = await uploads.one_image(request, options.max_bytes)
                seen = await service.look(name, network, file)
                result = await service.result(name, network, seen)
                if kind != JSON:
                    content = await service.in_thread(
                        answers.picture, kind, network.description, seen, side
                    )
                result.ms = _ms(begin)
                if kind == JSON:
                    return Response(result.model_dump_json(), media_type=JSON)
        told = result.model_dump_json(exclude={"regions"})
        return Response(content, media_type=kind, headers={documented.RESULT: told})

    @app.post(
        "/v1/predict/batch",
        responses=documented.BATCH,
        openapi_extra=documented.MANY_IMAGES,
        response_model=list[answers.BatchItem],
    )
    async def predict_batch(request: Request, model: Model = None) -> list[answers.BatchItem]:
        """Looks at many images; what is wrong with one is said in its place."""
        name, network = service.model(model)

        async def item(upload: UploadFile) -> answers.BatchItem:
            begin = time.perf_counter()
            said = uploads.name_of(upload)
            try:
                file = await uploads.read(upload, options.max_bytes)
                seen = await service.look(name, network, file)
                result = await service.result(name, network, seen)
                result.ms = _ms(begin)
                return answers.BatchItem(file=said, result=result)
            except Refused as refused:
                return answers.BatchItem(file=said, error=refused.line)
            except Exception as problem:
                _log.exception("%s", said)
                return answers.BatchItem(file=said, error=_failed(problem))

        found: list[answers.BatchItem] = []
        with service.places(options.max_batch) as count:
            async with service.in_time():
                files = await uploads.many_images(request, options.max_bytes)
            try:
                for first in range(0, len(files), count):
                    async with service.in_time():
                        some = map(item, files[first : first + count])
                        found += await asyncio.gather(*some)
            finally:
                for file in files:
                    await file.close()
        return found


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=documented.GUARDED)
    async def models() -> answers.Models:
        """The models that are served, and the limits of what is sent to them."""
        if not service.ready:
            raise not_ready("the models are being loaded")
        return answers.Models(
            models=[answers.info(name, m.description) for name, m in service.models.items()],
            max_upload_bytes=service.options.max_bytes,
            max_pixels=service.options.max_pixels,
        )

    @app.get("/healthz")
    async def healthz() -> answers.Status:
        """The process lives."""
        return answers.Status(status="alive")

    @app.get("/readyz", responses=documented.READY)
    async def readyz() -> answers.Status:
        """All models are loaded and compiled."""
        if not service.ready:
            raise not_ready("the models are being loaded")
        return answers.Status(status="ready")

    @app.get("/metrics", responses=documented.METRICS, response_class=Response)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    for path, name in _FILES.items():
        app.add_route(path, _constant(name), include_in_schema=False)


def _constant(name: str) -> Callable[[Request], Awaitable[Response]]:
    """The answer that is a file of the page; no request says which."""

    async def answer(request: Request) -> Response:
        return FileResponse(_PAGE / name)

    return answer


def _add_errors(app: FastAPI) -> None:
    def error(status: int, line: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(line.split())}, status, headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, refusal: Refused) -> Response:
        return error(refusal.status, refusal.line, refusal.headers)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, problem: HTTPException) -> Response:
        return error(problem.status_code, str(problem.detail), problem.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Response:
        first = problem.errors()[0]
        return error(422, f"{'.'.join(map(str, first['loc'][1:2]))}: {first['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, problem: ClientDisconnect) -> Response:
        return error(400, "the client has gone")  # nobody reads it

    @app.exception_handler(Exception)
    async def unexpected(request: Request, problem: Exception) -> Response:
        return error(500, _failed(problem))


def _failed(problem: Exception) -> str:
    return f"the server failed ({type(problem).__name__}); its log says more"


def _ms(begin: float) -> float:
    return round(1000 * (time.perf_counter() - begin), 3)
