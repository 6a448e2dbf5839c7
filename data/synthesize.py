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

_FRAME_MS = 5.0


@dataclass(frozen=True)
class SpeakerChange:
    """Factors: 1 changes nothing; a higher `formants` is a shorter vocal tract, a higher `tempo` faster speech."""

    pitch: float = 1.0
    formants: float = 1.0
    tempo: float = 1.0

    def __post_init__(self) -> None:
        if not all(0.25 <= factor <= 4.0 for factor in (self.pitch, self.formants, self.tempo)):
            raise UserError(f"speaker change: factors must be in 0.25..4, got {self}")

    @classmethod
    def draw(cls, rng: np.random.Generator) -> SpeakerChange:
        """A random speaker: up to 6 semitones, 12 % of vocal tract, 15 % of tempo, either way."""
        semitones, tract, tempo = rng.uniform(-1, 1, 3)
        return cls(2 ** (semitones / 2), 1.12**tract, 1.15**tempo)


def change_speaker(wav: np.ndarray, rate: int, change: SpeakerChange) -> np.ndarray:
    """`wav` [S], float64, as another speaker would say it; [S / tempo]."""
    import pyworld

    f0, times = pyworld.dio(wav, rate, frame_period=_FRAME_MS)
    f0 = pyworld.stonemask(wav, f0, times, rate)
    spectrum = pyworld.cheaptrick(wav, f0, times, rate)
    noise = pyworld.d4c(wav, f0, times, rate)
    if change.formants != 1.0:
        bins = np.arange(spectrum.shape[1])
        source = bins / change.formants
        log_spectrum = np.log(spectrum)
        spectrum = np.exp(np.stack([np.interp(source, bins, frame) for frame in log_spectrum]))
    changed = pyworld.synthesize(f0 * change.pitch, spectrum, noise, rate, _FRAME_MS / change.tempo)
    peak = np.abs(changed).max(initial=0.0)
    return changed * (0.9 / peak) if peak > 0.9 else changed


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
