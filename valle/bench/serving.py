"""A server under load: how soon and how much it speaks, and whether everybody gets their own answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from valle.common.errors import UserError

RATE = 24_000
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Would you rather walk in the rain, or wait until it stops?",
    "She sells sea shells by the sea shore every summer.",
)
SAME = 0.95
"""Correlation with the answer given without load. Rounding differs with the size of a batch, so it is not always 1."""


@dataclass
class Answer:
    """What one request came to."""

    status: int
    first_audio: float = 0.0
    """Seconds."""
    wave: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))


@dataclass(frozen=True)
class LoadResult:
    """So many clients, each asking again as soon as it has been answered."""

    clients: int
    seconds: float
    answers: int
    refused: int
    """With 429, as it should be when too many ask."""
    failed: int
    """With anything else."""
    mixed_up: int
    """Answers that are not what the same request gives without load."""
    audio_per_second: float
    """Seconds of speech made in a second."""
    first_audio_p50: float
    first_audio_p95: float
    memory_growth_mb: float


class Target:
    """A server at an address."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.netloc = urlsplit(url).netloc
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        if not self.netloc:
            raise UserError(f"--url {url} is no address; give one like http://127.0.0.1:8000")

    def voices(self) -> list[str]:
        """Ids of the voices of the package: every server has them."""
        return [voice["id"] for voice in json.loads(self._get("/v1/voices"))["data"] if voice["builtin"]]

    def memory_mb(self) -> float:
        name = "process_resident_memory_bytes "
        lines = self._get("/metrics").decode().splitlines()
        return float(next(line.removeprefix(name) for line in lines if line.startswith(name))) / 2**20

    def speak(self, text: str, voice: str) -> Answer:
        """Ask, and listen to the end."""
        connection = http.client.HTTPConnection(self.netloc, timeout=600)
        body = json.dumps({"input": text, "voice": voice, "response_format": "pcm", "stream": True})
        begin = time.monotonic()
        try:
            connection.request("POST", "/v1/audio/speech", body, self.headers)
            response = connection.getresponse()
            first = response.read(2)
            heard = time.monotonic() - begin
            data = first + response.read()
        except (OSError, http.client.HTTPException):
            return Answer(0)
        finally:
            connection.close()
        if response.status != 200:
            return Answer(response.status)
        return Answer(200, heard, np.frombuffer(data, "<i2"))

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self.netloc, timeout=60)
        try:
            connection.request("GET", path, headers=self.headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"http://{self.netloc} does not answer ({error}); start it with 'valle serve'") from error
        finally:
            connection.close()
        if response.status != 200:
            said = data[:200].decode(errors="replace")
            raise UserError(f"http://{self.netloc}{path} answers {response.status}: {said}")
        return data


def run_load(target: Target, clients: int, seconds: float) -> LoadResult:
    """Let `clients` ask for `seconds`; every voice and text is asked for once before, alone."""
    wishes = [(text, voice) for voice in target.voices() for text in TEXTS]
    expected = {wish: target.speak(*wish).wave for wish in wishes}
    before, begin = target.memory_mb(), time.monotonic()
    answers: list[tuple[tuple[str, str], Answer]] = []

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < begin + seconds:
            wish = wishes[turn % len(wishes)]
            answer = target.speak(*wish)
            answers.append((wish, answer))
            turn += 1
            if answer.status == 429:
                time.sleep(1)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    return _summary(clients, took, answers, expected, target.memory_mb() - before)


def _summary(
    clients: int,
    took: float,
    answers: Sequence[tuple[tuple[str, str], Answer]],
    expected: dict[tuple[str, str], np.ndarray],
    growth: float,
) -> LoadResult:
    good = [(wish, answer) for wish, answer in answers if answer.status == 200]
    first = [answer.first_audio for _, answer in good] or [float("nan")]
    return LoadResult(
        clients=clients,
        seconds=round(took, 1),
        answers=len(good),
        refused=sum(answer.status == 429 for _, answer in answers),
        failed=sum(answer.status not in (200, 429) for _, answer in answers),
        mixed_up=sum(not is_same(answer.wave, expected[wish]) for wish, answer in good),
        audio_per_second=round(sum(len(answer.wave) for _, answer in good) / RATE / took, 2),
        first_audio_p50=round(float(np.percentile(first, 50)), 3),
        first_audio_p95=round(float(np.percentile(first, 95)), 3),
        memory_growth_mb=round(growth, 1),
    )


def is_same(wave: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two recordings, int16 [S], are one."""
    if len(wave) != len(expected) or not len(wave):
        return False
    a, b = wave.astype(np.float64), expected.astype(np.float64)
    return float(a @ b) >= SAME * float(np.sqrt((a @ a) * (b @ b)))
