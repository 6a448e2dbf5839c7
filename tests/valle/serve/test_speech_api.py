"""Speech over HTTP: formats, errors, limits; and OpenAI's own client against a real server."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from fastapi.testclient import TestClient

from valle.serve.app import create_app
from valle.serve.service import Service
from valle.serve.watermark import detect

VOICE = "libri-1998"
TEXT = "Hello there. How are you?"
LONG = "One more sentence to speak, and then another one. " * 40


def ask(client: TestClient, **changes: object) -> httpx.Response:
    return client.post("/v1/audio/speech", json={"input": TEXT, "voice": VOICE, **changes})


def seconds(audio: bytes) -> float:
    samples, rate = soundfile.read(io.BytesIO(audio))
    assert rate == 24_000 and samples.ndim == 1 and np.abs(samples).max() > 1e-4
    return len(samples) / rate


def test_formats_hold_the_same_speech(client: TestClient) -> None:
    pcm = ask(client, response_format="pcm")
    length = len(pcm.content) / 2 / 24_000
    assert length > 0.1
    for name in ("wav", "flac", "opus", "mp3"):
        answer = ask(client, response_format=name)
        assert answer.status_code == 200 and answer.headers["x-sample-rate"] == "24000"
        assert seconds(answer.content) == pytest.approx(length, abs=0.1 if name == "mp3" else 0.03)


def test_aac_and_streamed_wav(client: TestClient) -> None:
    assert ask(client, response_format="aac").content[:1] == b"\xff"
    streamed = ask(client, response_format="wav", stream=True).content
    assert streamed[:4] == b"RIFF" and streamed[44:] == ask(client, response_format="pcm").content


def test_openais_voices_and_instructions(client: TestClient) -> None:
    """Every name gives one recording of the package, of a reader of that sex; `instructions` changes nothing."""
    listed = client.get("/v1/voices").json()["data"]
    sex = {name: voice["name"][-3:] for voice in listed for name in voice["openai_names"]}
    assert sex == {
        **dict.fromkeys(("alloy", "coral", "marin", "nova", "sage", "shimmer"), "(f)"),
        **dict.fromkeys(("ash", "ballad", "cedar", "echo", "fable", "onyx", "verse"), "(m)"),
    }
    assert client.get("/v1/audio/voices").json() == {"voices": listed}
    own = ask(client, voice="libri-1998", response_format="pcm").content
    assert own == ask(client, voice="nova", response_format="pcm", instructions="Speak cheerfully.").content
    recordings = [client.get(f"/v1/voices/{name}/recording").content for name in ("nova", "libri-1998", "onyx")]
    assert recordings[0] == recordings[1] != recordings[2]
    assert client.delete("/v1/voices/nova").status_code == 403


def test_same_seed_same_speech(client: TestClient) -> None:
    answers = [ask(client, response_format="pcm", seed=seed).content for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_the_best_of_several_takes(client: TestClient) -> None:
    def samples(seed: int, **options: Any) -> bytes:
        return ask(client, response_format="pcm", seed=seed, **options).content

    best = [samples(seed, best_of=4) for seed in range(4)]
    assert best == [samples(seed, stream=False) for seed in range(4)]
    # A stream has one take, which is not the best one every time.
    assert [samples(seed) for seed in range(4)] == [samples(seed, best_of=1) for seed in range(4)] != best
    refused = ask(client, best_of=5)
    assert refused.status_code == 400 and "best_of" in refused.text


def test_speed_and_gain(client: TestClient) -> None:
    plain, slow, soft = (
        seconds_and_level(ask(client, response_format="wav", **change).content)
        for change in ({}, {"speed": 0.4}, {"gain_db": -6})
    )
    assert slow[0] == pytest.approx(plain[0] / 0.4, rel=0.15)
    assert soft[0] == plain[0] and soft[1] == pytest.approx(plain[1] / 2, rel=0.02)


def seconds_and_level(audio: bytes) -> tuple[float, float]:
    samples, rate = soundfile.read(io.BytesIO(audio))
    return len(samples) / rate, float(np.sqrt(np.mean(samples**2)))


def test_events_and_faults(client: TestClient) -> None:
    """The last event lists what went wrong, such as a sentence that nobody can read."""
    text = "Hello there. 你好。 How are you?"
    lines = [line for line in ask(client, input=text, stream_format="sse").text.splitlines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done"
    faults = {fault["fault"]: fault for fault in events[-1]["faulty"]}
    assert (faults["unreadable"]["piece"], faults["unreadable"]["text"]) == (2, "你好。")
    whole = ask(client, input=text, response_format="wav")
    assert int(whole.headers["x-faulty-pieces"]) >= 1


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": "..."}, 400, "invalid_value", "input"),
        ({"input": "a" * 5000}, 400, "text_too_long", "input"),
        ({"voice": "../../etc/passwd"}, 404, "unknown_voice", "voice"),
        ({"speed": 9}, 400, "invalid_value", "speed"),
        ({"language": "klingon"}, 400, "invalid_value", "input"),
        ({"language": "fr-fr"}, 400, "invalid_value", "input"),
        ({"response_format": "midi"}, 400, "invalid_value", "response_format"),
        ({"speeed": 1}, 400, "invalid_value", "speeed"),
    ],
)
def test_mistakes_are_named(client: TestClient, changes: dict[str, object], status: int, code: str, param: str) -> None:
    answer = ask(client, **changes)
    assert answer.status_code == status
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


def test_large_body_is_refused_unread(client: TestClient) -> None:
    assert client.post("/v1/audio/speech", content=b" " * 200_000).status_code == 413


def test_watermark(make_service: Callable[..., Service]) -> None:
    with TestClient(create_app(make_service(watermark_key="a key"), ("testserver",))) as client:
        samples, rate = soundfile.read(io.BytesIO(ask(client, input=LONG[:600], response_format="wav").content))
    assert detect(samples, rate, "a key").is_marked and not detect(samples, rate).is_marked


def leaver(url: str, leave: threading.Event, **changes: object) -> threading.Thread:
    """A client that asks for a long text and goes away, whatever has come, when it is told to."""

    def ask_and_leave() -> None:
        body = {"input": LONG, "voice": VOICE, "response_format": "pcm", **changes}
        request = httpx.Request("POST", f"{url}/v1/audio/speech", json=body)
        host, port = request.url.host, request.url.port
        with socket.create_connection((host, port)) as connection:
            head = f"POST {request.url.path} HTTP/1.1\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            connection.sendall(head.encode() + b"\r\n" + request.content)
            assert leave.wait(60)

    thread = threading.Thread(target=ask_and_leave)
    thread.start()
    return thread


def value(service: Service, metric: str, **labels: str) -> float:
    found = service.metrics._registry.get_sample_value(metric, labels)
    return 0.0 if found is None else found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_queue_is_bounded_and_leavers_make_room(
    stream: bool, make_service: Callable[..., Service], serving: Callable[[Service], Any]
) -> None:
    """One is spoken, one waits, the third is told when to come back; when the others leave, there is room again."""
    service, leave = make_service(concurrent=1, waiting=1), threading.Event()
    with serving(service) as server:
        first = leaver(server.url, leave, stream=stream)
        wait_until(lambda: value(service, "valle_speaking") == 1)
        second = leaver(server.url, leave, stream=stream)
        wait_until(lambda: service.worker.waiting == 1)
        refused = httpx.post(f"{server.url}/v1/audio/speech", json={"input": TEXT, "voice": VOICE})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "busy"
        leave.set()
        first.join()
        second.join()
        wait_until(lambda: value(service, "valle_utterances_total", outcome="cancelled") == 2)
        answer = httpx.post(f"{server.url}/v1/audio/speech", json={"input": TEXT, "voice": VOICE}, timeout=60)
        assert answer.is_success


def test_time_limit(make_service: Callable[..., Service]) -> None:
    with TestClient(create_app(make_service(request_seconds=0.0), ("testserver",))) as client:
        answer = ask(client, input=LONG[:1000])
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "timeout")


def test_a_failing_model_fails_one_request_only(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("valle.synthesis.engine.Engine.step", lambda engine: 1 / 0)
        assert ask(client).status_code == 500
    assert ask(client).status_code == 200 and client.get("/healthz").json()["status"] == "ok"


def test_concurrent_answers_are_not_mixed_up(client: TestClient) -> None:
    """Each is what it would be alone."""
    wishes = [{"seed": seed, "input": text} for seed in (0, 1, 2) for text in (TEXT, "Something else.")]
    options = {"response_format": "wav"}
    alone = [ask(client, **wish, **options).content for wish in wishes]
    with ThreadPoolExecutor(len(wishes)) as pool:
        together = list(pool.map(lambda wish: ask(client, **wish, **options).content, wishes))
    assert together == alone and len(set(alone)) == len(alone)


def test_openai_client_unchanged(server: Any, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none needed here")
    speech = client.audio.speech.create(model="tts-1", voice=VOICE, input=TEXT, response_format="wav")
    assert seconds(speech.content) > 0.1
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice=VOICE, input=TEXT) as answer:
        answer.stream_to_file(tmp_path / "speech.mp3")
    assert seconds((tmp_path / "speech.mp3").read_bytes()) > 0.1
    assert [model.id for model in client.models.list()] == ["valle"]
    with pytest.raises(openai.NotFoundError, match="no voice 'nobody'; known are libri-1688, .*alloy"):
        client.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)
