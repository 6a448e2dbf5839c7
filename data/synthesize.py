"""A corpus of synthetic speech: sentences read by every voice at hand, each made into many speakers.

The texts are exact and no recording is needed, so anyone can train with it. The result is a folder as `valle prepare
folder` takes it: `wav/SPEAKER/ID.wav` and `list.tsv`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.common.files import whole
from valle.data.engines import available, engine
from valle.data.speaker_change import SpeakerChange, change_speaker

RATE = 24000


@dataclass(frozen=True)
class Speaker:
    """An invented speaker: a voice of an engine, changed."""

    name: str
    engine: str
    voice: str
    change: SpeakerChange

    @property
    def synthesiser(self) -> str:
        """The engine without its folder."""
        return self.engine.partition("=")[0]


@dataclass(frozen=True)
class Line:
    """What is to be said by whom."""

    id: str
    speaker: Speaker
    text: str


def invent_speakers(engines: Sequence[str], count: int, seed: int) -> list[Speaker]:
    """`count` speakers: the voices of all engines in turns, the first time as they are, then changed at random."""
    voices = [(name, voice) for name in engines for voice in engine(name).voices]
    rng = np.random.default_rng(seed)
    speakers = []
    for number in range(count):
        name, voice = voices[number % len(voices)]
        change = SpeakerChange() if number < len(voices) else SpeakerChange.draw(rng)
        speakers.append(
            Speaker(f"{name.partition('=')[0]}-{voice.replace('+', '-')}-{number:04d}", name, voice, change)
        )
    return speakers


def read_sentences(path: str | Path) -> list[str]:
    """The lines of a text file, without empty ones."""
    try:
        lines = [" ".join(line.split()) for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; give a text file with a sentence on each line"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    sentences = [line for line in lines if any(c.isalpha() for c in line)]
    if not sentences:
        raise UserError(f"{path} holds no sentence; it must have one on each line")
    return sentences


def synthesize(
    sentences: str | Path,
    out: str | Path,
    *,
    utterances: int,
    speakers: int = 200,
    engines: Sequence[str] | None = None,
    seed: int = 0,
    jobs: int = 1,
) -> Path:
    """Speak `utterances` lines, the sentences in random order again and again, and write their table.

    A run that was stopped makes what is missing. Gives the path of the table.
    """
    if min(utterances, speakers, jobs) < 1:
        raise UserError("utterances, speakers and jobs must be at least 1")
    out = Path(out)
    lines = list(
        _lines(read_sentences(sentences), invent_speakers(engines or available(), speakers, seed), utterances, seed)
    )
    missing = [line for line in lines if not _path(out, line).exists()]
    bar = tqdm(desc="speaking", total=len(lines), initial=len(lines) - len(missing), unit="utt")
    with bar, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for _ in pool.map(_speak, missing, [out] * len(missing), chunksize=8):
            bar.update()
    table = out / "list.tsv"
    rows = [
        f"{line.id}\t{_path(out, line).relative_to(out)}\t{line.speaker.name}\t{line.text}\t{line.speaker.synthesiser}"
        for line in lines
    ]
    with whole(table) as part:
        part.write_text("\n".join(["id\tpath\tspeaker\ttext\tengine", *rows]) + "\n", encoding="utf-8")
    return table


def _lines(sentences: list[str], speakers: list[Speaker], count: int, seed: int) -> Iterator[Line]:
    rng = np.random.default_rng((seed, 1))
    order: list[int] = []
    for number in range(count):
        order = order or rng.permutation(len(sentences)).tolist()
        yield Line(f"{number:07d}", speakers[int(rng.integers(len(speakers)))], sentences[order.pop()])


def _path(out: Path, line: Line) -> Path:
    return out / "wav" / line.speaker.name / f"{line.id}.wav"


def _speak(line: Line, out: Path) -> None:
    wav, rate = engine(line.speaker.engine).speak(line.text, line.speaker.voice)
    if line.speaker.change != SpeakerChange():
        wav = change_speaker(wav, rate, line.speaker.change)
    with whole(_path(out, line)) as part:
        soundfile.write(part, resample(wav.astype(np.float32), rate, RATE), RATE, subtype="PCM_16")
