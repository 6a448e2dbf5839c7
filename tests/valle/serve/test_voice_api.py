"""Voices: upload, use, deletion, what is refused, and what a kill leaves behind."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from valle.serve.app import create_app
from valle.serve.service import Service
from valle.synthesis.voice_store import VoiceStore


def upload(client: TestClient, audio: bytes, consent: str = "true", **form: str) -> Any:
    return client.post("/v1/voices", files={"file": ("../../me.wav", audio)}, data={"consent": consent, **form})


def wav_of(samples: np.ndarray, rate: int = 16_000, **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


@pytest.fixture
def good(recordings: Path) -> bytes:
    return (recordings / "1998-15444-0001.opus").read_bytes()


def test_stored_used_and_deleted(client: TestClient, good: bytes) -> None:
    answer = upload(client, good, name="Me", language="en-us")
    assert answer.status_code == 201
    voice = answer.json()
    assert (voice["name"], voice["builtin"]) == ("Me", False) and voice["seconds"] == pytest.approx(6.0, abs=0.1)
    assert voice["id"] in [v["id"] for v in client.get("/v1/voices").json()["data"]]
    recording, rate = soundfile.read(io.BytesIO(client.get(f"/v1/voices/{voice['id']}/recording").content))
    assert len(recording) / rate == pytest.approx(6.0, abs=0.1)
    assert client.post("/v1/audio/speech", json={"input": "Hello.", "voice": {"id": voice["id"]}}).is_success
    assert client.delete(f"/v1/voices/{voice['id']}").status_code == 204
    assert client.delete(f"/v1/voices/{voice['id']}").status_code == 404
    assert client.get(f"/v1/voices/{voice['id']}/recording").status_code == 404


def test_consent_is_needed_and_recorded(client: TestClient, good: bytes, tmp_path: Path) -> None:
    assert upload(client, good, consent="false").json()["error"]["code"] == "consent_needed"
    voice = upload(client, good).json()
    stored = json.loads((tmp_path / "voices" / voice["id"] / "voice.json").read_text())
    assert "permission" in stored["consent"]["statement"] and stored["consent"]["time"] == stored["created"]
    assert "consent" not in voice


def matroska_of(samples: np.ndarray, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


RNG = np.random.default_rng(0)
BAD = {
    "empty": (b"", "not a recording"),
    "text": (b"hello " * 1000, "not a recording"),
    "playlist": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not a recording"),
    "codec of films": (matroska_of(RNG.normal(0, 0.1, 16_000 * 5), "ac3"), "not a recording"),
    "long": (wav_of(RNG.normal(0, 0.1, 16_000 * 31)), "longer than 30 s"),
    "short": (wav_of(RNG.normal(0, 0.1, 16_000 * 2)), "2.0 s"),
    "silent": (wav_of(np.zeros(16_000 * 5)), "silent"),
    "not finite": (wav_of(np.full(16_000 * 5, np.nan), subtype="FLOAT"), "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recordings_are_refused(name: str, client: TestClient) -> None:
    audio, reason = BAD[name]
    answer = upload(client, audio)
    assert answer.status_code == 400 and reason in answer.json()["error"]["message"]
    assert all(voice["builtin"] for voice in client.get("/v1/voices").json()["data"])


def test_large_uploads_are_refused(make_service: Callable[..., Service]) -> None:
    with TestClient(create_app(make_service(upload_bytes=10_000), ("testserver",))) as client:
        assert upload(client, bytes(200_000)).status_code == 413


def test_builtin_voices_stay(client: TestClient) -> None:
    voices = client.get("/v1/voices").json()["data"]
    assert len(voices) == 5
    assert client.delete(f"/v1/voices/{voices[0]['id']}").status_code == 403


@pytest.mark.parametrize("voice", ["..", "%2e%2e", "..%2f..%2fetc", "voice_0/../..", ".new", "A", "voice_%00"])
def test_ids_are_not_paths(voice: str, client: TestClient) -> None:
    assert client.get(f"/v1/voices/{voice}/recording").status_code in (404, 400)
    assert client.delete(f"/v1/voices/{voice}").status_code in (404, 405, 400)


def test_servers_share_a_folder_and_kills_leave_no_half_voices(
    make_service: Callable[..., Service], good: bytes, tmp_path: Path
) -> None:
    with TestClient(create_app(make_service(), ("testserver",))) as client:
        voice = upload(client, good).json()["id"]
    folder = tmp_path / "voices"
    half, fresh = folder / ".voice_half.new", folder / ".voice_fresh.new"
    for path in (half, fresh):
        path.mkdir()
        (path / "voice.json").write_text("{")
    os.utime(half, (0, time.time() - 7200))
    store = VoiceStore(folder, 10)
    assert [v.id for v in store.list() if v.consent] == [voice]
    assert not half.exists() and fresh.exists()
    (folder / voice / "voice.json").write_text("{")  # damaged
    assert [v.id for v in store.list() if v.consent] == []
