"""Audio files in and out: mono float32 tensors in [-1, 1] at the rate that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from valle.tokenizers.errors import UserError


def load_audio(path: str | Path, sample_rate: int) -> Tensor:
    """Read any format libsndfile knows, mix to mono, resample; returns [S], float32.

    Raises `UserError` for a missing, unreadable or empty file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"audio file not found: {path}")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot read {path} as audio ({error}); convert it to WAV, FLAC, OGG or MP3") from error
    if samples.shape[0] == 0:
        raise UserError(f"{path} holds no audio samples")
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise UserError(f"{path} holds samples that are not finite numbers; export it again")
    return torch.from_numpy(resample(mono, rate, sample_rate))


def resample(samples: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """Resample [S] or [S, C] from `rate` to `to_rate` Hz (soxr, high quality)."""
    return samples if rate == to_rate else soxr.resample(samples, rate, to_rate).astype(np.float32)


def save_audio(path: str | Path, wav: Tensor, sample_rate: int) -> None:
    """Write `wav` [S] (or any shape that squeezes to it) as 16-bit audio; the format follows the file name."""
    path = Path(path)
    samples = wav.detach().squeeze().cpu().float().clamp(-1, 1).numpy()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, sample_rate)
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}") from error
