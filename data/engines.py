"""Speech synthesisers that say exactly the text that they are given, and so teach a model to read.

Without a download: espeak-ng, a dependency of this package; flite and festival if installed. From a folder: Kokoro,
which sounds human, in many voices, since its own can be mixed.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import soundfile

from valle.common.errors import UserError
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.phonemes import phonemize


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
