"""What clients may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one server. What lies beyond is refused with a 4xx status, before it costs anything."""

    text_characters: int = 4096
    """Of one request; OpenAI's limit, about five minutes of speech."""
    upload_bytes: int = 10 * 2**20
    min_upload_seconds: float = 3.0
    max_upload_seconds: float = 30.0
    waiting: int = 32
    """Requests that wait while others are spoken; one more is told to come back later."""
    concurrent: int = 8
    """Requests that are spoken at the same time."""
    uploads: int = 8
    """Recordings that are received, decoded and stored at the same time, each some 20 MB of memory."""
    websockets: int = 256
    """Open connections."""
    request_seconds: float = 300.0
    """From a request's arrival to its last sample."""
    voices: int = 10_000
    """Stored voices."""
