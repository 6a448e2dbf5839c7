"""Malformed requests, by the thousand: never a 5xx, never a hang, and the server still works.

A short round runs with the other tests. The long one, more than ten thousand requests, says how many were answered:
    VALLE_FUZZ_EXAMPLES=1000 pytest -s tests/valle/serve/test_fuzz.py
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from valle.serve.auth import ApiKeys
from valle.serve.limits import Limits
from valle.serve.protocol import Frame, FrameType
from valle.serve.service import Service
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.voice_store import VoiceStore

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("VALLE_FUZZ_EXAMPLES", "15"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
VOICE = "libri-1998"


@pytest.fixture(scope="module")
def server(bundle: Bundle, serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all; afterwards it must be as healthy as before."""
    limits = Limits(text_characters=60)
    voices = VoiceStore(tmp_path_factory.mktemp("voices"), 3)
    service = Service.build(VoiceCloner(bundle, "fp32"), voices, limits, ApiKeys({}))
    with serving(service) as server:
        yield server
        body = {"input": "Hello.", "voice": VOICE}
        assert httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60).status_code == 200
        assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
        assert service.worker.waiting == 0
        assert service.metrics._registry.get_sample_value("valle_websockets") == 0
        (answers,) = service.metrics.responses.collect()
        print(f"\nHTTP requests answered: {sum(s.value for s in answers.samples if s.name.endswith('_total')):,.0f}")


@pytest.fixture(scope="module")
def operations(server: Any) -> list[Any]:
    """What the OpenAPI document says can be asked."""
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return [result.ok() for result in document.get_all_operations()]


@fuzz
@given(st.data(), st.sampled_from(GenerationMode))
def test_what_the_openapi_document_allows_and_forbids(
    operations: list[Any], data: st.DataObject, mode: GenerationMode
) -> None:
    for operation in operations:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(checks=[not_a_server_error], timeout=60)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = (
    "input",
    "voice",
    "response_format",
    "speed",
    "stream",
    "stream_format",
    "language",
    "seed",
    "best_of",
    "gain_db",
    "model",
)


@fuzz
@given(st.dictionaries(st.sampled_from(fields), anything), st.sampled_from(["Hello.", "\x00", "¿?", "漢字", "9" * 60]))
@example({"voice": VOICE, "language": "\x00"}, "Hello.")
@example({"voice": VOICE, "speed": float("nan")}, "Hello.")
@example({"voice": VOICE}, "\ud800")
def test_speech_requests(server: Any, changes: dict[str, Any], text: str) -> None:
    body = json.dumps({"input": text, "voice": VOICE, "stream": False} | changes).encode()
    answer = httpx.post(f"{server.url}/v1/audio/speech", content=body, timeout=60)
    assert answer.status_code < 500


@fuzz
@given(st.sampled_from(["/v1/audio/speech", "/v1/voices", "/v1/check", "/v1/voices/x"]), st.binary(max_size=300))
def test_bodies(server: Any, path: str, body: bytes) -> None:
    for kind in ("application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", "\xff"):
        headers = {"content-type": kind.encode("latin-1")}
        assert httpx.post(server.url + path, content=body, headers=headers, timeout=60).status_code < 500


@fuzz
@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n")
@example(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
def test_raw_bytes(server: Any, data: bytes) -> None:
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(data + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        status = connection.recv(4096).split(b" ", 2)[1:2]
    assert not status or int(status[0]) < 500


start = st.just(json.dumps({"voice": VOICE}).encode())
well_formed = st.builds(
    lambda kind, payload: Frame(kind, payload).to_bytes(),
    st.sampled_from(FrameType),
    start | st.binary(max_size=30) | st.text(max_size=20).map(str.encode),
)
broken = st.binary(max_size=30) | st.builds(
    lambda kind, size, payload: struct.pack("<BI", kind, size) + payload,
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=10),
)


@fuzz
@given(st.lists(well_formed | broken | st.text(max_size=5), max_size=8))
def test_websocket_messages(server: Any, messages: list[bytes | str]) -> None:
    url, subprotocol = f"ws://{server.address}/v1/audio/speech", Subprotocol("tts-1.0")
    with connect(url, subprotocols=[subprotocol], open_timeout=60) as socket, suppress(ConnectionClosed):
        for message in messages:
            socket.send(message)
    assert socket.close_code in (1000, 1002, None)


@settings(fuzz, max_examples=max(3, EXAMPLES // 10))
@given(st.integers(0, 4000), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20))
def test_damaged_recordings(server: Any, cut: int, changes: list[tuple[int, int]]) -> None:
    recordings = Path(__file__).parents[3] / "valle" / "assets" / "eval"
    audio = bytearray((recordings / "1998-15444-0001.opus").read_bytes())
    for place, value in changes:
        audio[place] = value
    upload = {"file": ("a", bytes(audio[: len(audio) - cut]))}
    answer = httpx.post(f"{server.url}/v1/voices", files=upload, data={"consent": "true"}, timeout=60)
    assert answer.status_code < 500
    if answer.status_code == 201:
        assert httpx.delete(f"{server.url}/v1/voices/{answer.json()['id']}").status_code == 204
