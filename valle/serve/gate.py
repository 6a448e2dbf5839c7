"""What every request passes before any route: who asks, how much it sends, how long it takes."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from valle.serve.auth import Sites
from valle.serve.errors import ApiError, busy
from valle.serve.service import Service

HEALTH = "/healthz"
"""Probes ask for it by whatever name or address the server has."""
OPEN_PATHS = ("/", HEALTH, "/openapi.json")
"""What needs no API key: nothing of it is anybody's."""
OPEN_FOLDER = "/page/"

BODY_SECONDS = 60.0
"""A body has to arrive within this time."""
SMALL_BODY = 128 * 1024
"""Bytes: enough for any text."""
_UPLOADS = ("/v1/voices", "/v1/check")
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]
_MULTIPART_EXTRA = 64 * 1024
_GRACE_SECONDS = 60.0
"""For sending what was spoken in time."""
_FULL_SECONDS = 5
"""Until a place may be free for one more recording or WebSocket."""


class Gate:
    """ASGI middleware; the name of the API key goes into the request's state."""

    def __init__(self, app: ASGIApp, service: Service, sites: Sites) -> None:
        self.app, self.service, self.sites = app, service, sites
        self._taken: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        started = False

        async def send_counted(message: Message) -> None:
            nonlocal started
            if message["type"].endswith("response.start"):
                started = True
                more = (b"x-request-id", request_id.encode())
                message["headers"] = [*message.get("headers", []), more, *_HEADERS]
                self._count(scope, message["status"])
            await send(message)

        try:
            self._check(scope, request_id)
            with self._place(scope):
                if scope["type"] == "websocket":
                    await self.app(scope, receive, send_counted)
                    return
                async with asyncio.timeout(self.service.limits.request_seconds + _GRACE_SECONDS):
                    await self.app(scope, self._limited(scope, receive), send_counted)
        except ApiError as error:
            await JSONResponse(error.to_dict(), error.status_code, error.headers)(scope, receive, send_counted)
        except TimeoutError:
            if started:
                raise  # the connection is closed, so that nobody takes the part for the whole
            late = ApiError(408, "timeout", "the request took too long")
            await JSONResponse(late.to_dict(), 408)(scope, receive, send_counted)

    def _check(self, scope: Scope, request_id: str) -> None:
        headers = Headers(scope=scope)
        path = scope["path"]
        if path != HEALTH:
            self.sites.check(headers)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            subprotocols = HTTPConnection(scope).scope.get("subprotocols", [])
            state["key_name"] = self.service.keys.check(headers, subprotocols)

    @contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """One of the places for what takes much memory while it lasts. Raises `ApiError` 429 where none is free."""
        limits = self.service.limits
        kind = "websocket" if scope["type"] == "websocket" else "upload" if _is_upload(scope) else "other"
        if self._taken[kind] >= {"websocket": limits.websockets, "upload": limits.uploads}.get(kind, math.inf):
            raise busy(_FULL_SECONDS)
        self._taken[kind] += 1
        try:
            yield
        finally:
            self._taken[kind] -= 1

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that refuses a body which is too large or too slow."""
        most = self.service.limits.upload_bytes + _MULTIPART_EXTRA if _is_upload(scope) else SMALL_BODY
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > most:
            raise _too_large(most)
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()  # waits for the client's leaving
            async with asyncio.timeout_at(deadline):
                message = await receive()
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > most:
                raise _too_large(most)
            return message

        return limited

    def _count(self, scope: Scope, status: int) -> None:
        # The route, not the path: a path may be anything, and metrics must not grow.
        route = getattr(scope.get("route"), "path", "other")
        self.service.metrics.responses.labels(route, str(status)).inc()


def _is_upload(scope: Scope) -> bool:
    return scope["path"] in _UPLOADS and scope["method"] == "POST"


def _too_large(most: int) -> ApiError:
    return ApiError(413, "too_large", f"the request is too large; at most {most:,} bytes are read")
