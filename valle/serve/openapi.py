"""What `/openapi.json` says beyond what FastAPI finds by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from valle.serve.protocol import FROM_CLIENT, SUBPROTOCOL, FrameType


class ErrorFacts(BaseModel):
    """An error."""

    message: str
    type: str
    param: str | None
    code: str
    retry_after: int | None = None


class ErrorBody(BaseModel):
    """What every response with a status of 400 or more holds."""

    error: ErrorFacts


def _types(from_client: bool) -> str:
    return ", ".join(f"0x{kind:02x} {kind.name}" for kind in FrameType if (kind in FROM_CLIENT) == from_client)


_ABOUT = f"""Text to speech in the voice of a recording.

Beside what is listed here, the WebSocket `/v1/audio/speech` with the subprotocol `{SUBPROTOCOL}` takes text in pieces
and gives raw Opus packets of 20 ms, mono, 24 kHz. Every binary message is one frame: type (1 byte), length of the
payload (4 bytes, little-endian), payload. From the client: {_types(True)}; from the server: {_types(False)}.
START, READY, DONE and ERROR carry JSON, TEXT carries UTF-8; docs/serving.md has all of it.
"""

_MEANINGS = {
    400: "The request is wrong; the message says where.",
    401: "An API key is needed, or not known.",
    403: "A page of another site, or a host name that this server does not go by.",
    404: "There is no such voice.",
    408: "It took too long.",
    413: "The request is too large.",
    429: "The server is busy; Retry-After says when to come back.",
    503: "The server is stopping.",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": meaning} for status, meaning in _MEANINGS.items()
}


def complete_openapi(app: FastAPI) -> None:
    """Describe the WebSocket, name the API key; take out FastAPI's 422: here it is 400, as with OpenAI."""
    schema = app.openapi()
    schema["info"]["description"] = _ABOUT
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema.get("components", {}).get("schemas", {}).pop(name, None)
    schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"key": []}, {}]
