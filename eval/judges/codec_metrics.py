"""Scores of a decoded signal beside its original: STOI, PESQ, MCD, ViSQOL, DNSMOS.

Every metric takes `reference` [S] and `degraded` [S] (float, in [-1, 1], sample by sample aligned) with their rate in
Hz, and raises `UnmeasurableError` where the score does not exist (silence, too short). Shapes of mel-cepstra: T frames
(every 10 ms, the first one centred on sample 0).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.eval.judges.measure import UnmeasurableError, check_audible, optional_package
from valle.tokenizers.codecs.losses import mel_filterbank

SAMPLE_RATE = 16_000
"""The rate at which all of them listen, so that scores of codecs of different rates can be compared."""
ORDER = 13
WINDOW, HOP, N_FFT, BANDS = 400, 160, 1024, 40
"""25 ms Hann window every 10 ms, zero-padded to 1024 points; 40 triangular bands from 0 to 8 kHz."""
_SPEECH_RANGE_DB = 40.0
_BAND_RANGE_DB = 60.0
"""Bands below this are floored: what a recording holds above its low-pass is nothing to be faithful to."""


def stoi(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """Short-time objective intelligibility, about 0 to 1 (Taal et al., 2011)."""
    pystoi = optional_package("pystoi", "pystoi>=0.4")
    clean, decoded = _pair(reference, degraded, sample_rate)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # pystoi warns and gives 1e-5 where it has nothing to measure; as a score that would be a lie.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, decoded, SAMPLE_RATE))
        except (RuntimeWarning, ValueError) as error:
            raise UnmeasurableError("less than 0.4 s of speech") from error


def pesq(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """Wide-band PESQ, 1.0 to 4.64 MOS-LQO (ITU-T P.862.2)."""
    package = optional_package("pesq", "pesq>=0.0.4")
    clean, decoded = _pair(reference, degraded, sample_rate)
    try:
        return float(package.pesq(SAMPLE_RATE, clean, decoded, "wb"))
    except package.BufferTooShortError as error:
        raise UnmeasurableError("shorter than 0.25 s") from error
    except package.NoUtterancesError as error:
        raise UnmeasurableError("PESQ finds no speech") from error


def mcd(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB, 0 and up, lower is better (Kubichek, 1993).

    The mean over frames of 10 / ln 10 * sqrt(2 * sum over m = 1..13 of (c_m - c'_m)^2), with c from
    `mel_cepstrum`: the RMS difference in dB between the two spectral envelopes along the mel axis, their overall level
    left out. Only frames where the reference speaks count. No time warping: a codec keeps time. Figures of programs
    that analyse in other ways (WORLD and SPTK, other orders, no factor in front) are on other scales.
    """
    clean, decoded = (torch.from_numpy(x) for x in _pair(reference, degraded, sample_rate))
    speaks = speech_frames(clean)
    difference = mel_cepstrum(clean)[speaks] - mel_cepstrum(decoded)[speaks]
    return float(10 / math.log(10) * (2 * difference.square().sum(dim=1)).sqrt().mean())


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


def visqol(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """ViSQOL v3, speech mode with the lattice mapper, 1 to 5 MOS-LQO (Chinen et al., 2020).

    The mapper is a network. Below about 2 it can fall while spectra get more alike; look at `visqol_poly` there, too.
    """
    return _visqol(reference, degraded, sample_rate, lattice=True)


def visqol_poly(reference: Tensor, degraded: Tensor, sample_rate: int) -> float:
    """ViSQOL v3 with the polynomial mapper of speech mode, which rises with the mean similarity of the spectra."""
    return _visqol(reference, degraded, sample_rate, lattice=False)


def _visqol(reference: Tensor, degraded: Tensor, sample_rate: int, lattice: bool) -> float:
    api = _visqol_api(lattice)
    clean, decoded = _pair(reference, degraded, sample_rate)
    try:
        return float(api.measure_from_arrays(clean.astype(np.float64), decoded.astype(np.float64), SAMPLE_RATE).moslqo)
    except (ValueError, IndexError, RuntimeError) as error:
        raise UnmeasurableError(f"ViSQOL: {error}") from error


def dnsmos(wav: Tensor, sample_rate: int) -> float:
    """Overall quality of `wav` [S] as DNSMOS P.835 predicts it, 1 to 5 (Reddy et al., 2022).

    A prediction by a network trained on noisy calls: a proxy for a listening test, and none of likeness.
    """
    package = optional_package("speechmos.dnsmos", "speechmos' 'onnxruntime")
    check_audible(wav, "signal")
    return float(package.run(_audio(wav, sample_rate), SAMPLE_RATE)["ovrl_mos"])


Metric = Callable[[Tensor, Tensor, int], float]
METRICS: dict[str, Metric] = {
    "stoi": stoi,
    "pesq": pesq,
    "mcd": mcd,
    "visqol": visqol,
    "visqol_poly": visqol_poly,
    "dnsmos": lambda _, degraded, sample_rate: dnsmos(degraded, sample_rate),
}
DEFAULT_METRICS = ("visqol", "pesq", "stoi", "mcd")
"""Those of TiCodec's table 1."""


def find_metric(name: str) -> Metric:
    """The metric called `name`. Raises `UserError` listing the known names."""
    if name not in METRICS:
        raise UserError(f"unknown metric '{name}'; known metrics: {', '.join(METRICS)}")
    return METRICS[name]


def _pair(reference: Tensor, degraded: Tensor, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    if reference.dim() != 1 or reference.shape != degraded.shape:
        raise ValueError(f"need two signals [S], got {tuple(reference.shape)} and {tuple(degraded.shape)}")
    check_audible(reference, "reference")
    check_audible(degraded, "decoded signal")
    return _audio(reference, sample_rate), _audio(degraded, sample_rate)


def _audio(wav: Tensor, sample_rate: int) -> np.ndarray:
    audio = resample(wav.detach().cpu().float().numpy(), sample_rate, SAMPLE_RATE)
    return np.clip(audio, -1, 1)


@cache
def _visqol_api(lattice: bool) -> Any:
    package = optional_package("visqol", "visqol-python[lattice]>=3.8")
    api = package.VisqolApi()
    try:
        api.create(mode="speech", use_lattice_model=lattice)
    except ImportError as error:
        raise UserError(f"ViSQOL lacks its lattice mapper ({error}); pip install 'visqol-python[lattice]'") from error
    return api
