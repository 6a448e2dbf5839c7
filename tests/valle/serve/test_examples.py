"""The examples of README.md and docs/serving.md run as they stand there; only the address is that of another server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from valle.common.audio import load_audio, save_audio

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
ADDRESS = "127.0.0.1:8000"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def examples(document: str) -> list[tuple[str, str]]:
    """Language and text of each block that asks a server."""
    blocks = BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))
    return [(kind, code) for kind, code in blocks if ADDRESS in code and (kind == "python" or code.startswith("curl "))]


EXAMPLES = {document: examples(document) for document in ("README.md", "docs/serving.md")}


def test_they_are_found() -> None:
    assert {document: len(found) for document, found in EXAMPLES.items()} == {"README.md": 2, "docs/serving.md": 4}


@pytest.mark.parametrize(
    ("kind", "code"),
    [pytest.param(*example, id=f"{name}-{n}") for name, found in EXAMPLES.items() for n, example in enumerate(found)],
)
def test_it_runs_as_written(kind: str, code: str, server: Any, recordings: Path, tmp_path: Path) -> None:
    save_audio(tmp_path / "me.wav", load_audio(recordings / "1998-15444-0001.opus", 16_000), 16_000)
    (tmp_path / ".curlrc").write_text("fail\n")  # an error's body would pass for the answer
    program = [sys.executable, "-c"] if kind == "python" else ["bash", "-euc"]
    done = subprocess.run(
        [*program, code.replace(ADDRESS, server.address)],
        cwd=tmp_path,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "CURL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    if "out.mp3" in code:
        samples, rate = soundfile.read(tmp_path / "out.mp3")
        assert rate == 24_000 and abs(samples).max() > 1e-4
    else:
        assert re.search(r'"object":"voice"|bytes of Opus\n(.*\n)*.*"cancelled": false', done.stdout), done.stdout
