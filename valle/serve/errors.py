"""Errors as clients see them, in the form of OpenAI's API: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException

from valle.synthesis.voice_store import VoiceError


class ApiError(HTTPException):
    """A request that is refused or has failed.

    code: what programs look at; the message is for people
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        # A message may quote the client, whose JSON can hold halves of characters; no UTF-8 can.
        super().__init__(status, message.encode(errors="replace").decode(), headers)
        self.code, self.param, self.retry_after = code, param, retry_after

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return {"error": error if self.retry_after is None else {**error, "retry_after": self.retry_after}}


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400: the client has to change the request."""
    return ApiError(400, code, message, param)


def busy(retry_after: int) -> ApiError:
    """429: the same request may succeed in `retry_after` seconds."""
    return ApiError(429, "busy", f"the server is busy; try again in {retry_after} s", retry_after=retry_after)


def voice_refused(error: VoiceError) -> ApiError:
    """What the store of voices refuses, as clients see it."""
    status = {"unknown_voice": 404, "builtin_voice": 403, "voices_full": 409}[error.code]
    return ApiError(status, error.code, str(error), "voice")
