"""Cepstral features of speech for the aligner: one frame each 10 ms.

Mel-frequency cepstra (Davis & Mermelstein, 1980) with their first and second differences, normalised to zero mean and
unit variance within the utterance, which takes out most of what a microphone or a voice adds to every frame.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

FRAME_SECONDS = 0.010
WINDOW_SECONDS = 0.025
N_MELS = 26
N_CEPSTRA = 13
DIM = 3 * N_CEPSTRA
DYNAMIC_RANGE = 18.4  # nats of power: 80 dB
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0


def cepstra(wav: Tensor, sample_rate: int) -> Tensor:
    """Features [T, 39] of `wav` [S]; T = S // (samples of 10 ms), and frame t is centred on (t + 1/2) x 10 ms."""
    hop, window = (
        round(sample_rate * FRAME_SECONDS),
        round(sample_rate * WINDOW_SECONDS),
    )
    n_frames = wav.numel() // hop
    if n_frames == 0:
        return wav.new_zeros(0, DIM)
    emphasised = wav - 0.97 * torch.nn.functional.pad(wav, (1, 0))[:-1]
    margin = window - hop
    padded = torch.nn.functional.pad(emphasised, (margin // 2, margin - margin // 2))
    frames = padded.unfold(0, window, hop)[:n_frames] * torch.hann_window(window, periodic=False)
    power = torch.fft.rfft(frames, n=_fft_size(window)).abs().square()
    log_mel = (power @ _mel_filters(sample_rate, _fft_size(window))).clamp_min(1e-20).log()
    # Relative to the loudest band, so that the gain does not matter: digital silence must not become an outlier that
    # squeezes all the speech into a corner of the normalised range.
    static = _normalise(log_mel.clamp_min(log_mel.max() - DYNAMIC_RANGE) @ _cosine_transform())
    slope = _differences(static)
    return torch.cat([static, slope, _differences(slope)], dim=1)


def loudness(features: Tensor) -> Tensor:
    """The utterance-normalised log-energy [T] of features [T, 39]: the zeroth cepstrum."""
    return features[:, 0]


def _normalise(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0).clamp_min(1e-3)


def _differences(x: Tensor) -> Tensor:
    """The regression slope over five frames, [T, D] -> [T, D]."""
    padded = torch.cat([x[:1], x[:1], x, x[-1:], x[-1:]])
    return (2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / 10


def _fft_size(window: int) -> int:
    return 1 << (window - 1).bit_length()


@lru_cache
def _mel_filters(sample_rate: int, n_fft: int) -> Tensor:
    """Triangles evenly spaced on the mel scale, [n_fft // 2 + 1, 26]."""

    def mel(hz: float) -> float:
        return 1127 * math.log1p(hz / 700)

    top = min(HIGHEST_HZ, 0.475 * sample_rate)
    corners = 700 * torch.expm1(torch.linspace(mel(LOWEST_HZ), mel(top), N_MELS + 2, dtype=torch.float64) / 1127)
    hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


@lru_cache
def _cosine_transform() -> Tensor:
    """The orthonormal DCT-II, [26, 13]."""
    n = torch.arange(N_MELS, dtype=torch.float64)[:, None]
    k = torch.arange(N_CEPSTRA, dtype=torch.float64)
    basis = torch.cos(math.pi / N_MELS * (n + 0.5) * k) * math.sqrt(2 / N_MELS)
    basis[:, 0] /= math.sqrt(2)
    return basis.float()
