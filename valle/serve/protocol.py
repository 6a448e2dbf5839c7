"""The WebSocket subprotocol `tts-1.0`, apart from any socket.

Every binary message is one frame: type (1 byte), length of the payload (4 bytes, little-endian), payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

SUBPROTOCOL = "tts-1.0"
KEY_PREFIX = "api-key."
"""Browsers cannot set headers on a WebSocket: `api-key.KEY` beside the subprotocol carries the key."""

_HEADER = struct.Struct("<BI")
MAX_PAYLOAD = 64 * 1024
MAX_MESSAGE = MAX_PAYLOAD + _HEADER.size


class FrameType(IntEnum):
    """What a frame is; those of the client come first."""

    START = 0x01
    """JSON: voice, and what else `POST /v1/audio/speech` takes (language, seed, speed, gain_db, best_of)."""
    TEXT = 0x02
    """UTF-8; a sentence is spoken as soon as it is complete."""
    END = 0x03
    """Empty: the text is complete."""
    CANCEL = 0x04
    """Empty: stop speaking."""
    READY = 0x11
    """JSON: request_id, sample_rate, packet_ms. Answers START."""
    AUDIO = 0x12
    """One raw Opus packet."""
    DONE = 0x13
    """JSON: seconds, cancelled. Ends what START began; the next START may follow."""
    ERROR = 0x1F
    """JSON: code, message. Ends what START began; when the frame itself was wrong, the connection too."""


FROM_CLIENT = {FrameType.START, FrameType.TEXT, FrameType.END, FrameType.CANCEL}


class ProtocolError(Exception):
    """A message that no client of this protocol sends."""


@dataclass(frozen=True)
class Frame:
    """One message."""

    type: FrameType
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        return _HEADER.pack(self.type, len(self.payload)) + self.payload

    @classmethod
    def from_bytes(cls, message: bytes) -> Frame:
        """Raises `ProtocolError` for anything but exactly one frame."""
        if len(message) < _HEADER.size:
            raise ProtocolError(f"a frame has a header of {_HEADER.size} bytes, got {len(message)} bytes in all")
        kind, length = _HEADER.unpack_from(message)
        payload = message[_HEADER.size :]
        if length != len(payload):
            raise ProtocolError(f"the header announces {length} bytes, {len(payload)} followed")
        if length > MAX_PAYLOAD:
            raise ProtocolError(f"a payload has at most {MAX_PAYLOAD} bytes, got {length}")
        try:
            return cls(FrameType(kind), payload)
        except ValueError as error:
            raise ProtocolError(f"unknown frame type 0x{kind:02x}") from error
