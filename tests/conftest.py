"""What tests of several folders need: a browser, real recordings, results made by hand."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from torch import Tensor

    from valle.eval.protocols import Recording

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """Training and CTranslate2 flush them to 0 in the whole process; the next test's generators need them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome: the system's, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    with playwright.sync_playwright() as started:
        path = started.chromium.executable_path
    if not Path(path).exists():
        pytest.skip("no Chromium here; get one with: playwright install chromium")
    return path


@pytest.fixture(scope="session")
def recordings() -> dict[str, Recording]:
    """The shipped list, by id."""
    from valle.eval.protocols import read_list

    return {recording.id: recording for recording in read_list()}


@pytest.fixture(scope="session")
def speech(recordings: dict[str, Recording]) -> Callable[[str], Tensor]:
    """A shipped recording [S] at 16 kHz by its id."""
    from valle.common.audio import load_audio

    return lambda id_: load_audio(recordings[id_].path, 16_000)


@pytest.fixture(scope="session")
def tone() -> Callable[..., None]:
    """Writes a sound of so many seconds to a path."""

    def write(path: Path, seconds: float = 1.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(np.arange(round(16_000 * seconds)) / 8), 16_000)

    return write


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
    """A row of utterances.tsv: one error in three words, unless told otherwise."""

    def make(id_: str, **cells: Any) -> Row:
        words = {"wer": 1 / 3, "cer": 0.25, "words": 3, "characters": 11}
        errors = {"substitutions": 1, "deletions": 0, "insertions": 0, "diff": "the [-cat-] {+hat+} sat"}
        reading = {"skipped": 0, "repeated": 0, "skipped_words": "", "repeated_words": ""}
        rest = {"sim": 0.7, "stop_reason": "eos", "notes": ""}
        named = {"id": id_, "prompt": "p1", "speaker": "anna", "text": "The cat sat."}
        return {**named, **words, **errors, **reading, **rest, **cells}

    return make


@pytest.fixture(scope="session")
def write_run(tone: Callable[..., None]) -> Callable[..., Path]:
    """Writes a folder as `valle eval tts --out` leaves it."""

    def write(folder: Path, rows: Sequence[Row], sounds: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "utterances.tsv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
            writer.writeheader()
            writer.writerows(rows)
        errors = sum(r["substitutions"] + r["deletions"] + r["insertions"] for r in rows)
        value = errors / sum(r["words"] for r in rows)
        wer = {"value": value, "low": value / 2, "high": value * 2, "n": len(rows), "excluded": 0}
        figures = {"metrics": {"wer": wer}, "context": {"recordings_wer": wer}}
        content = {"kind": "tts", "seed": 0, "config": {"list": "made"}, "versions": {}, **figures}
        (folder / "results.json").write_text(json.dumps(content))
        if sounds:
            for r in rows:
                tone(folder / "wavs" / f"{r['id']}.wav")
            tone(folder / "prompts" / "p1.wav")
        return folder

    return write
