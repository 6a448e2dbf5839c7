"""How uvicorn listens: what bounds a connection before any route, or the gate, has been asked."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from valle.common.errors import UserError
from valle.serve.protocol import MAX_MESSAGE

HEAD_SECONDS = 10.0
"""For a request's first line and headers to arrive, from the connection's beginning or the answer before."""
HEAD_BYTES = 32 * 1024


class HttpProtocol(H11Protocol):
    """Closes a connection on which no request begins in time: uvicorn waits for the end of the headers forever.

    Of its two parsers this is the one that bounds the size of the headers.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        self._expect_request()
        super().on_response_complete()

    def _expect_request(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._close_unless_asked, self.cycle)

    def _close_unless_asked(self, before: object) -> None:
        """`before`: the request that was the last one when the waiting began."""
        if self.cycle is before and self.transport.get_protocol() is self:  # else it is a WebSocket by now
            self.transport.close()


def check_free(host: str, port: int) -> None:
    """Raise `UserError` unless one can listen there, which uvicorn would find out only after the models are loaded."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}; try another --port") from error


def listener(app: FastAPI, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration for `app`; `options`: host, port, log_level and the like."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # Opus is not to be made smaller, and a window takes memory for each connection
        **options,
    )
