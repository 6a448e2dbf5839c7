"""The protocol `tts-1.0`: its frames, and sessions over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import av
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from valle.serve.protocol import Frame, FrameType, ProtocolError

VOICE = "libri-1998"
START = Frame(FrameType.START, json.dumps({"voice": VOICE}).encode())
END, CANCEL = Frame(FrameType.END), Frame(FrameType.CANCEL)


@settings(deadline=None)
@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_frames_come_back(kind: FrameType, payload: bytes) -> None:
    frame = Frame(kind, payload)
    assert Frame.from_bytes(frame.to_bytes()) == frame


def test_audio_frame_bytes() -> None:
    assert Frame(FrameType.AUDIO, b"opus").to_bytes() == b"\x12\x04\x00\x00\x00opus"


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_other_bytes_are_refused_or_a_frame(message: bytes) -> None:
    try:
        frame = Frame.from_bytes(message)
    except ProtocolError:
        return
    assert frame.to_bytes() == message


def text(content: str) -> Frame:
    return Frame(FrameType.TEXT, content.encode())


def talk(server: Any, *frames: Frame | bytes, until: int = 1) -> list[Frame]:
    """Send frames, and collect what comes until `until` utterances have ended, or the connection has."""

    async def session() -> list[Frame]:
        async with asyncio.timeout(60), connect(server) as socket:
            for frame in frames:
                await socket.send(frame.to_bytes() if isinstance(frame, Frame) else frame)
            return [frame async for frame in utterances(socket, until)]

    return asyncio.run(session())


def connect(server: Any) -> Any:
    return websockets.connect(f"ws://{server.address}/v1/audio/speech", subprotocols=[Subprotocol("tts-1.0")])


async def utterances(socket: ClientConnection, count: int) -> AsyncIterator[Frame]:
    with suppress(ConnectionClosedError):
        async for message in socket:
            assert isinstance(message, bytes)
            frame = Frame.from_bytes(message)
            yield frame
            count -= frame.type in (FrameType.DONE, FrameType.ERROR)
            if not count:
                return


def types(frames: Sequence[Frame]) -> list[FrameType]:
    """In order, repeated ones once."""
    return [f.type for i, f in enumerate(frames) if i == 0 or frames[i - 1].type != f.type]


SPOKEN = [FrameType.READY, FrameType.AUDIO, FrameType.DONE]


def test_text_in_pieces_becomes_opus_packets(server: Any) -> None:
    cut = "Hällo there. How are you?".encode()
    pieces = [Frame(FrameType.TEXT, cut[:2]), Frame(FrameType.TEXT, cut[2:15]), Frame(FrameType.TEXT, cut[15:])]
    frames = talk(server, START, *pieces, END)
    assert types(frames) == SPOKEN
    packets = [f.payload for f in frames if f.type is FrameType.AUDIO]
    done = json.loads(frames[-1].payload)
    assert (done["seconds"], done["cancelled"]) == (round(0.02 * len(packets), 3), False)
    assert done["faulty"] == []
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate = 24_000  # type: ignore[attr-defined]
    durations = [sum(f.samples / f.sample_rate for f in decoder.decode(av.Packet(p))) for p in packets]  # type: ignore[attr-defined]
    assert all(abs(duration - 0.02) < 0.01 for duration in durations)


def test_one_utterance_after_another(server: Any) -> None:
    async def session() -> list[Frame]:
        frames = []
        async with asyncio.timeout(60), connect(server) as socket:
            for sentence in ("One.", "Two."):
                for frame in (START, text(sentence), END):
                    await socket.send(frame.to_bytes())
                frames += [frame async for frame in utterances(socket, 1)]
        return frames

    assert types(asyncio.run(session())) == SPOKEN * 2


def test_cancel_stops_at_once(server: Any) -> None:
    frames = talk(server, START, text("Many words to say, one after another. " * 50), END, CANCEL)
    assert json.loads(frames[-1].payload)["cancelled"] is True


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(FrameType.START, b'{"voice": "nobody"}')], "unknown_voice"),
        ([Frame(FrameType.START, b"not json")], "invalid_value"),
        ([Frame(FrameType.START, b'{"voice": "libri-1998", "speed": 100}')], "invalid_value"),
        ([START, text("word " * 2000), END], "text_too_long"),
        ([START, text("..."), END], "invalid_value"),
        ([START, text("word"), END, text("late")], "protocol"),
        ([START, Frame(FrameType.TEXT, b"\xff\xff")], "protocol"),
        ([Frame(FrameType.AUDIO, b"")], "protocol"),
        ([b"\x01"], "protocol"),
        ([b"\x63\x00\x00\x00\x00"], "protocol"),
        ([b"\x02\xff\xff\xff\xffabc"], "protocol"),
    ],
)
def test_errors_are_typed(server: Any, frames: list[Frame | bytes], code: str) -> None:
    # An error of the protocol ends the connection, after the utterance that was going on.
    answers = talk(server, *frames, until=2 if code == "protocol" else 1)
    errors = [json.loads(frame.payload)["code"] for frame in answers if frame.type is FrameType.ERROR]
    assert errors == [code]


def test_clients_that_vanish_free_their_slot(server: Any) -> None:
    async def vanish() -> None:
        async with connect(server) as socket:
            await socket.send(START.to_bytes())
            await socket.send(text("Many words to say, one after another. " * 50).to_bytes())
            await anext(aiter(socket))
            socket.transport.abort()

    asyncio.run(vanish())
    assert types(talk(server, START, text("Hello."), END)) == SPOKEN
    assert server.service.worker.waiting == 0
