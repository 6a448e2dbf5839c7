"""A real server process, killed while voices are on their way in."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import soundfile

pytestmark = pytest.mark.slow
UPLOADS = 6


@contextmanager
def serving(model: Path, voices: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`valle serve` on a free port: its address and its process."""
    command = [sys.executable, "-m", "valle", "serve", "--port", "0", "--model", str(model), "--voices", str(voices)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = (re.search(r"running on (http://[\d.:]+)", line) for line in server.stderr)
        yield next(match[1] for match in found if match), server
    finally:
        server.kill()
        server.wait()


def test_kill_9_loses_no_voice(model: Path, recordings: Path, tmp_path: Path) -> None:
    audio = (recordings / "1998-15444-0001.opus").read_bytes()
    promised: list[str] = []
    with serving(model, tmp_path) as (url, server):

        def upload(_: int) -> None:
            form = {"files": {"file": ("me.opus", audio)}, "data": {"consent": "true"}}
            try:
                answer = httpx.post(f"{url}/v1/voices", timeout=300, **form)  # type: ignore[arg-type]
            except httpx.TransportError:
                return  # it came too late
            assert answer.status_code == 201
            promised.append(answer.json()["id"])
            if len(promised) == 2:
                server.kill()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(upload, range(UPLOADS)))
        assert server.wait() == -9 and 2 <= len(promised) < UPLOADS
    with serving(model, tmp_path) as (url, server):
        stored = [v["id"] for v in httpx.get(f"{url}/v1/voices", timeout=60).json()["data"] if not v["builtin"]]
        assert set(promised) <= set(stored)
        for voice in stored:  # one may have been stored whose answer was not sent any more: that one is whole, too
            recording = httpx.get(f"{url}/v1/voices/{voice}/recording", timeout=60).content
            assert soundfile.info(io.BytesIO(recording)).duration == pytest.approx(6.0, abs=0.1)
        body = {"input": "Hello.", "voice": promised[0]}
        assert httpx.post(f"{url}/v1/audio/speech", json=body, timeout=300).is_success
