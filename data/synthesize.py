"""A corpus of synthetic speech: sentences read by every voice at hand, each made into many speakers.

The texts are exact and no recording is needed, so anyone can train with it. The result is a folder as `valle prepare
folder` takes it: `wav/SPEAKER/ID.wav` and `list.tsv`. Without a download speak espeak-ng, a dependency of this package,
and flite and festival if installed; from a folder Kokoro, which sounds human, in many voices, since its own can be
mixed.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import soundfile
from tqdm import tqdm

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.common.files import whole
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.phonemes import phonemize

RATE = 24_000
_FRAME_MS = 5.0
"""Of the vocoder that changes speakers."""


class Engine(ABC):
    """A synthesiser of English."""

    voices: tuple[str, ...]

    @abstractmethod
    def speak(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        """Waveform [S], float64 in [-1, 1], and its sample rate."""


class Espeak(Engine):
    """espeak-ng through its library (a formant synthesiser: clear, buzzing). Not for threads: it has global state.

    Its noise is drawn at random, so the same words differ a little each time.
    """

    voices = tuple(
        f"{accent}+{variant}"
        for accent in ("en-us", "en-gb-x-rp", "en-gb-scotland")
        for variant in ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "f5")
    )
    _SYNCHRONOUS, _UTF8 = 2, 1  # speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = str(espeakng_loader.get_data_path()).encode()
        self._rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 0, path, 0)
        if self._rate <= 0:
            raise UserError("espeak-ng does not start; install espeakng-loader again")
        self._parts: list[np.ndarray] = []
        receiver = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._receiver = receiver(self._receive)  # kept, for the library calls it
        self._library.espeak_SetSynthCallback(self._receiver)

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float64) / 32768)
        return 0

    def speak(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {voice}")
        self._parts.clear()
        raw = text.encode() + b"\0"
        if self._library.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 0, 0, self._UTF8, None, None) != 0:
            raise UserError(f"espeak-ng cannot say '{text[:60]}'")
        return np.concatenate([np.zeros(0), *self._parts]), self._rate


class Program(Engine):
    """A synthesiser that is a program: text in, a WAV file out."""

    def __init__(self, command: tuple[str, ...], voices: tuple[str, ...]) -> None:
        self.command = command
        self.voices = voices

    def speak(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "text.txt", Path(folder) / "speech.wav"
            source.write_text(text, encoding="utf-8")
            places = {"voice": voice, "text": str(source), "out": str(out)}
            done = subprocess.run([word.format(**places) for word in self.command], capture_output=True)
            if done.returncode != 0 or not out.is_file():
                reason = done.stderr.decode(errors="replace").strip()[:200]
                raise UserError(f"{self.command[0]} failed with voice {voice}: {reason}")
            wav, rate = soundfile.read(out)
        return wav, rate


FLITE = Program(("flite", "-voice", "{voice}", "-f", "{text}", "-o", "{out}"), ("awb", "kal16", "rms", "slt"))
FESTIVAL = Program(("text2wave", "-eval", "({voice})", "-o", "{out}", "{text}"), ("voice_kal_diphone",))


class Kokoro(Engine):
    """Kokoro-82M (hexgrad; Apache-2.0), a natural synthesiser, by ONNX Runtime on one thread.

    Its folder is that of the Hub's onnx-community/Kokoro-82M-v1.0-ONNX: `onnx/model.onnx`, `tokenizer.json` and
    `voices/*.bin`, styles [510, 1, 256] by the number of symbols. Beside those voices there are mixtures of three, each
    a pure function of its number, so that there are many speakers with many utterances each.
    """

    MIXTURES = 400
    _RATE = 24_000
    # What espeak-ng writes and Kokoro reads otherwise, in this order.
    _PHONES = (
        *(("aɪ", "I"), ("aʊ", "W"), ("dʒ", "ʤ"), ("eɪ", "A"), ("tʃ", "ʧ"), ("ɔɪ", "Y"), ("oʊ", "O"), ("əʊ", "O")),
        *(("əl", "ᵊl"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ɚ", "əɹ"), ("ɝ", "ɜɹ"), ("r", "ɹ"), ("x", "k")),
        *(("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"), ("ː", ""), ("ʔ", "t"), ("ɾ", "T"), ("ʲ", ""), ("̃", ""), ("̩", "")),
    )

    def __init__(self, folder: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("kokoro needs ONNX Runtime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            self._ids: dict[str, int] = content["model"]["vocab"]
            self._styles = {
                path.stem: np.fromfile(path, dtype=np.float32).reshape(-1, 1, 256)
                for path in sorted((folder / "voices").glob("[ab][fm]_*.bin"))
            }
            self._session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"), options)
        except Exception as error:  # ONNX Runtime raises its own types
            raise UserError(
                f"{folder} is no folder of Kokoro ({str(error).splitlines()[0]}); on a machine that reaches the "
                f"Hugging Face Hub: hf download onnx-community/Kokoro-82M-v1.0-ONNX --local-dir {folder}"
            ) from error
        if not self._styles:
            raise UserError(f"{folder}/voices holds no English voice of Kokoro (af_*.bin and the like)")
        self.voices = (*self._styles, *(f"mix-{number:03d}" for number in range(self.MIXTURES)))

    def speak(self, text: str, voice: str) -> tuple[np.ndarray, int]:
        symbols = "".join(phonemize(normalise(text))).strip()
        for ours, theirs in self._PHONES:
            symbols = symbols.replace(ours, theirs)
        ids = [self._ids[symbol] for symbol in symbols if symbol in self._ids]
        if not ids:
            raise UserError(f"kokoro finds nothing to say in '{text[:60]}'")
        style = self._style(voice)
        names: list[Any] = [argument.name for argument in self._session.get_inputs()]
        values = (
            np.array([[0, *ids, 0]], dtype=np.int64),
            style[min(len(ids), len(style)) - 1],
            np.ones(1, np.float32),
        )
        wav = self._session.run(None, dict(zip(names, values, strict=True)))[0]
        return wav.ravel().astype(np.float64).clip(-1, 1), self._RATE

    def _style(self, voice: str) -> np.ndarray:
        """Style [510, 1, 256] of a voice, or of a mixture of three voices of one gender."""
        if voice in self._styles:
            return self._styles[voice]
        rng = np.random.default_rng(int(voice.removeprefix("mix-")))
        gender = rng.choice(["f", "m"])
        pool = [name for name in self._styles if name[1] == gender] or list(self._styles)
        parts = zip(rng.dirichlet([0.8] * 3), rng.choice(pool, 3), strict=True)
        return sum((share * self._styles[name] for share, name in parts), np.zeros((), np.float32)).astype(np.float32)


def available() -> list[str]:
    """The engines that can be used on this machine."""
    return ["espeak", *(n for n, program in (("flite", "flite"), ("festival", "text2wave")) if shutil.which(program))]


@cache
def engine(name: str) -> Engine:
    """The engine `name`, or `kokoro=FOLDER`; raises `UserError` when it is unknown or not installed."""
    if name.startswith("kokoro="):
        return Kokoro(Path(name.removeprefix("kokoro=")))
    if name not in available():
        raise UserError(f"speech synthesiser '{name}' is not here; there are: {', '.join(available())}, kokoro=FOLDER")
    return Espeak() if name == "espeak" else {"flite": FLITE, "festival": FESTIVAL}[name]


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
