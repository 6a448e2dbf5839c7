"""Sound and its picture in forms that every browser shows: MP3, and PNG of the spectrogram."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image

from valle.common.errors import UserError

RATE = 16_000
_COMPRESSION = 0.7
"""About 52 kbit/s at this rate: what is heard as an artefact should be the model's."""
_WINDOW, _HOP, _HEIGHT = 512, 160, 112
_RANGE_DB = 70.0
_ANCHORS = ((0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122), (229, 80, 100), (251, 135, 97))
_MAGMA = np.array([*_ANCHORS, (254, 194, 135), (252, 253, 191)], dtype=np.float64)
"""Nine colours of matplotlib's magma, which is even to the eye and to the colour-blind."""


@dataclass(frozen=True)
class Sound:
    """An audio file, made small."""

    mp3: bytes
    png: bytes
    seconds: float

    @property
    def mp3_uri(self) -> str:
        """For `src`."""
        return f"data:audio/mpeg;base64,{base64.b64encode(self.mp3).decode()}"

    @property
    def png_uri(self) -> str:
        """For `src`."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def load_sound(path: Path) -> Sound | None:
    """`path` as MP3 and picture; None if it holds no samples. Raises `UserError` for what is no audio."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot read {path} as audio ({error})") from error
    if not len(samples):
        return None
    mono = samples.mean(axis=1)
    audio = mono if rate == RATE else soxr.resample(mono, rate, RATE)
    return Sound(_mp3(audio), _picture(audio), len(audio) / RATE)


def _mp3(audio: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        *(file, np.clip(audio, -1, 1), RATE),
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=_COMPRESSION,
    )
    return file.getvalue()


def _picture(audio: np.ndarray) -> bytes:
    """Spectrogram, 10 ms a column, 0 to 8 kHz on a mel-like scale upwards, 70 dB from black to white."""
    padded = np.pad(audio, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * np.hanning(_WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)) ** 2
    decibel = 10 * np.log10(power @ _bands().T + 1e-10)
    # Loudness is relative to the loudest point: outputs of different levels must look alike.
    level = np.clip(1 + (decibel - decibel.max()) / _RANGE_DB, 0, 1)
    picture = Image.fromarray((level.T[::-1] * 255).astype(np.uint8), mode="P")
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _bands() -> np.ndarray:
    """[_HEIGHT, bins]: triangles whose centres are evenly spaced in mel."""
    bins = np.linspace(0, RATE / 2, _WINDOW // 2 + 1)
    centres = 700 * np.expm1(np.linspace(0, np.log1p(RATE / 2 / 700), _HEIGHT + 2))
    width = np.maximum(np.diff(centres), bins[1])  # low bands are narrower than a bin
    rising = 1 - (centres[1:-1, None] - bins) / width[:-1, None]
    falling = 1 - (bins - centres[1:-1, None]) / width[1:, None]
    triangles = np.clip(np.minimum(rising, falling), 0, 1)
    return triangles / triangles.sum(axis=1, keepdims=True)


def _palette() -> list[int]:
    at = np.linspace(0, 1, 256)
    stops = np.linspace(0, 1, len(_MAGMA))
    colours = np.stack([np.interp(at, stops, _MAGMA[:, channel]) for channel in range(3)], axis=1)
    return colours.round().astype(int).ravel().tolist()
