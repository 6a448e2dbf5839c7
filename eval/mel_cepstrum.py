"""Mel-cepstra of speech at 16 kHz, for the mel-cepstral distortion.

Shapes: S samples, T frames (every 10 ms, the first one centred on sample 0), M coefficients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from valle.tokenizers.codecs.losses import mel_filterbank

SAMPLE_RATE = 16_000
ORDER = 13
WINDOW, HOP, N_FFT, BANDS = 400, 160, 1024, 40
"""25 ms Hann window every 10 ms, zero-padded to 1024 points; 40 triangular bands from 0 to 8 kHz."""
_SPEECH_RANGE_DB = 40.0
_BAND_RANGE_DB = 60.0
"""Bands below this are floored: what a recording holds above its low-pass is nothing to be faithful to."""


def mel_cepstrum(wav: Tensor) -> Tensor:
    """Coefficients 1 to 13 [T, 13] of `wav` [S].

    c_m = 2/40 * sum over n of ln(A_n) cos(pi m (n + 1/2) / 40), A_n being the mean magnitude in mel band n, no less
    than 60 dB below the loudest band of `wav`. So ln(A) = c_0 / 2 + sum over m of c_m cos(...): the one-sided cepstrum
    that the factor 10 / ln 10 * sqrt(2 ...) of the mel-cepstral distortion belongs to.
    """
    amplitudes = _magnitudes(wav) @ mel_filterbank(SAMPLE_RATE, N_FFT, BANDS)
    amplitudes = amplitudes.clamp(min=float(amplitudes.max()) * 10 ** (-_BAND_RANGE_DB / 20))
    n, m = torch.arange(BANDS) + 0.5, torch.arange(1, ORDER + 1)
    cosines = 2 / BANDS * torch.cos(math.pi / BANDS * n[:, None] * m)
    return amplitudes.log() @ cosines


def speech_frames(wav: Tensor) -> Tensor:
    """Mask [T] of the frames of `wav` [S] that lie within 40 dB of its loudest one."""
    power = _magnitudes(wav).square().sum(dim=1)
    return power >= power.max() * 10 ** (-_SPEECH_RANGE_DB / 10)


def _magnitudes(wav: Tensor) -> Tensor:
    """Magnitude spectra [T, N_FFT // 2 + 1]; a sine of amplitude 1 gives 1."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(wav, N_FFT, HOP, WINDOW, window, center=True, pad_mode="constant", return_complex=True)
    return spectrum.abs().T * (2 / window.sum())
