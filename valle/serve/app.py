"""The application: all routes, their errors, and the start and end of the thread that speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from valle import __version__
from valle.serve.auth import Sites
from valle.serve.errors import ApiError, bad_request, voice_refused
from valle.serve.gate import Gate
from valle.serve.openapi import complete_openapi
from valle.serve.service import Service
from valle.serve.speech_api import speech_router
from valle.serve.system_api import PAGE, system_router
from valle.serve.voice_api import voice_router
from valle.serve.websocket_api import websocket_router
from valle.synthesis.voice_store import VoiceError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def create_app(service: Service, hosts: Sequence[str] = LOCAL_HOSTS, origins: Sequence[str] = ()) -> FastAPI:
    """The ASGI application of `service`, under these host names, also for the pages of these `origins` (`*`: any)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    # The usual documentation pages load their scripts from elsewhere; docs/serving.md has it all.
    app = FastAPI(title="valle", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    for router in (speech_router(service), voice_router(service), system_router(service), websocket_router(service)):
        app.include_router(router)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_middleware(Gate, service=service, sites=Sites(hosts, origins))
    if origins:  # outermost: a browser's question whether it may ask carries no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Faulty-Pieces", "X-Request-Id", "X-Sample-Rate"],
        )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(VoiceError, _voice_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    complete_openapi(app)
    return app


def _respond(error: ApiError) -> JSONResponse:
    return JSONResponse(error.to_dict(), error.status_code, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not isinstance(error, ApiError):
        api_error = ApiError(error.status_code, "http_error", str(error.detail))
        api_error.headers = error.headers
        error = api_error
    return _respond(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    """The first mistake, in one line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or None
    return _respond(bad_request(f"{where or 'body'}: {first['msg']}", where))


async def _voice_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VoiceError)
    return _respond(voice_refused(error))


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; nginx's logs use this number, too
