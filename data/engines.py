"""Speech synthesisers that need no download: espeak-ng, a dependency of this package; flite and festival if installed.

What they say is exactly the text that they are given, which makes them teachers of reading, if not of sounding human.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile

from valle.tokenizers.errors import UserError


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


def available() -> list[str]:
    """The engines that can be used on this machine."""
    return ["espeak", *(n for n, program in (("flite", "flite"), ("festival", "text2wave")) if shutil.which(program))]


@cache
def engine(name: str) -> Engine:
    """The engine `name`; raises `UserError` when it is unknown or not installed."""
    if name not in available():
        raise UserError(f"speech synthesiser '{name}' is not here; there are: {', '.join(available())}")
    return Espeak() if name == "espeak" else {"flite": FLITE, "festival": FESTIVAL}[name]
