"""What takes memory, places or time without asking for anything is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from valle.serve import listener, websocket_api
from valle.serve.protocol import Frame, FrameType
from valle.serve.service import Service

VOICE = "libri-1998"
START = Frame(FrameType.START, json.dumps({"voice": VOICE}).encode()).to_bytes()


def connect(server: Any) -> Any:
    return websockets.connect(f"ws://{server.address}/v1/audio/speech", subprotocols=[Subprotocol("tts-1.0")])


def dial(server: Any) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_more_than_fits_is_told_to_come_back(
    make_service: Callable[..., Service], serving: Callable[[Service], Any]
) -> None:
    """Twelve at once where one is spoken and two wait: some are answered, all others get 429 and a time."""
    body = {"input": "One more sentence to speak. " * 5, "voice": VOICE}
    with serving(make_service(concurrent=1, waiting=2)) as server, ThreadPoolExecutor(12) as pool:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=120)

        answers = list(pool.map(ask, range(12)))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)


def test_recordings_and_websockets_have_places(
    make_service: Callable[..., Service], serving: Callable[[Service], Any]
) -> None:
    with serving(make_service(uploads=1, websockets=1)) as server:

        async def second_websocket() -> None:
            async with connect(server):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(server)
            assert refused.value.response.status_code == 429
            assert int(refused.value.response.headers["retry-after"]) >= 1
            async with connect(server):
                pass

        asyncio.run(second_websocket())
        head = f"POST /v1/voices HTTP/1.1\r\nHost: {server.address}\r\nContent-Length: 1000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        upload = {"url": f"{server.url}/v1/voices", "files": {"file": ("a", b"no recording")}, "timeout": 60}
        with dial(server) as slow:
            slow.sendall(head.encode())
            # The server reads what comes first, first; the answer tells that it has.
            assert httpx.get(f"{server.url}/healthz", timeout=60).is_success
            assert httpx.post(**upload).status_code == 429
            assert httpx.get(f"{server.url}/v1/voices", timeout=60).is_success
        deadline = time.monotonic() + 60
        while (answer := httpx.post(**upload)).status_code == 429 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert answer.status_code == 400  # looked at, and no recording


def test_text_that_nobody_may_send_is_not_kept(server: Any) -> None:
    """It comes while the first sentence is being spoken, when nobody looks at it."""
    piece = Frame(FrameType.TEXT, b"word " * 10_000).to_bytes()

    async def flood() -> list[Frame]:
        async with asyncio.timeout(120), connect(server) as socket:
            await socket.send(START)
            await socket.send(Frame(FrameType.TEXT, b"Something long enough to speak for a while. And more").to_bytes())
            for _ in range(100):
                await socket.send(piece)
            frames = []
            while not frames or frames[-1].type not in (FrameType.ERROR, FrameType.DONE):
                frames.append(Frame.from_bytes(await socket.recv()))
            return frames

    kept: list[int] = []
    add_text = websocket_api._Speech.add_text

    def watched(speech: websocket_api._Speech, payload: bytes) -> None:
        add_text(speech, payload)
        kept.append(len(speech._text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(websocket_api._Speech, "add_text", watched)
        last = asyncio.run(flood())[-1]
    assert json.loads(last.payload)["code"] == "text_too_long"
    assert max(kept) <= server.service.limits.text_characters


def test_idle_websockets_are_closed(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_api, "IDLE_SECONDS", 0.2)

    async def idle() -> int | None:
        async with asyncio.timeout(60), connect(server) as socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.recv()
            return socket.close_code

    assert asyncio.run(idle()) == 1000


def test_endless_headers_are_cut_off(server: Any) -> None:
    with dial(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(1000):
                connection.sendall(b"x-%d: %s\r\n" % (number, b"a" * 1000))
        with contextlib.suppress(ConnectionError):
            assert connection.recv(4096).split(b" ")[1:2] in ([b"400"], [])
    assert httpx.get(f"{server.url}/healthz", timeout=60).is_success


WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", WHOLE[:-4], WHOLE + b"G"])
def test_requests_that_never_begin_are_given_up(sent: bytes, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.3)
    with dial(server) as connection:
        connection.sendall(sent)
        while connection.recv(4096):
            pass  # at the end the server has closed it; a timeout is an error


def test_halves_of_characters_are_a_mistake_of_the_client(server: Any) -> None:
    for field in ("voice", "language", "input", "\\ud800"):
        body = {"input": "Hello.", "voice": VOICE, field: "?"}
        wrong = json.dumps(body).replace('"?"', '"\\ud800"').replace("\\\\ud800", "\\ud800")
        answer = httpx.post(f"{server.url}/v1/audio/speech", content=wrong.encode(), timeout=60)
        assert answer.status_code in (400, 404), (field, answer.status_code)
