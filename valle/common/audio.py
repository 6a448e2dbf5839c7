"""Audio in and out: mono float32 tensors in [-1, 1] at the rate that is asked for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from valle.common.errors import UserError

AudioSource = str | Path | bytes | BinaryIO
"""A path, the bytes of an audio file, or such a file opened for reading: from where it is, seekable or not."""

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
"""What is written: libsndfile's container and coding."""
AUDIO_SUFFIXES = tuple(f".{name}" for name in FORMATS)
READ_SUFFIXES = (*AUDIO_SUFFIXES, ".aiff", ".aif")
"""Of the files that are taken for recordings where a folder is read."""


def load_audio(source: AudioSource, sample_rate: int) -> Tensor:
    """Read any format libsndfile knows, mix to mono, resample; returns [S], float32.

    Raises `UserError` for what is missing, unreadable or empty.
    """
    name, file = _open(source)
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot read {name} as audio ({error}); convert it to WAV, FLAC, OGG or MP3") from error
    if samples.shape[0] == 0:
        raise UserError(f"{name} holds no audio samples")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise UserError(f"{name} holds samples that are not finite numbers; export it again")
    return torch.from_numpy(resample(mono, rate, sample_rate))


def find_audio(folder: Path, name: str) -> Path | None:
    """The audio file `name` in `folder`, whichever of the suffixes it has."""
    # with_suffix would take ".000" of a name for its suffix.
    return next((path for suffix in AUDIO_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def name_of(source: object) -> str:
    """What messages call a place of audio: its path where it has one."""
    if isinstance(source, (str, Path)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the recording"


def _open(source: AudioSource) -> tuple[str, Path | BinaryIO]:
    """What to call `source`, and what libsndfile reads. Raises `UserError`."""
    name = name_of(source)
    if isinstance(source, (str, Path)):
        if not Path(source).exists():
            raise UserError(f"audio file not found: {source}")
        return name, Path(source)
    content = source.read() if hasattr(source, "read") else source
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise UserError(f"{name} is no audio file opened for reading bytes but {type(source).__name__}")
    if not content:
        raise UserError(f"{name} is empty, or was read to its end already (file.seek(0) goes back)")
    return name, io.BytesIO(content)


def resample(samples: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """Resample [S] or [S, C] from `rate` to `to_rate` Hz (soxr, high quality)."""
    return samples if rate == to_rate else soxr.resample(samples, rate, to_rate).astype(np.float32)


def save_audio(target: str | Path | BinaryIO, wav: Tensor, sample_rate: int, format: str | None = None) -> None:
    """Write `wav` [S] (or any shape that squeezes to it) to a path, or to a file opened for writing.

    format: one of `FORMATS` (those without loss have 16 bits); default: that of the path's suffix, for a file wav
    Raises `UserError` for another format, and where it cannot be written.
    """
    name = name_of(target)
    suffix = Path(target).suffix[1:] if isinstance(target, (str, Path)) else "wav"
    form = (format or suffix).lower()
    if form not in FORMATS:
        raise UserError(f"cannot write {name} as '{form}'; known formats: {', '.join(FORMATS)}")
    samples, (container, coding) = wav.detach().squeeze().cpu().float().clamp(-1, 1).numpy(), FORMATS[form]
    try:
        if isinstance(target, (str, Path)):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, samples, sample_rate, coding, format=container)
        else:
            # Not at once into the file: it may be a pipe, and soundfile passes over what goes wrong in one.
            content = io.BytesIO()
            soundfile.write(content, samples, sample_rate, coding, format=container)
            target.write(content.getvalue())
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"cannot write {name}: {error}") from error
