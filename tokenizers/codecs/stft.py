"""Short-time Fourier analysis and synthesis in frames that do not depend on padding.

Frame t is centred on the samples [t * hop, (t + 1) * hop) and the signal is zero outside its bounds, so that S samples
give ceil(S / hop) frames and T frames give T * hop samples, alone or within a padded batch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_FLOOR = 1e-3
"""Magnitudes below are taken for it: 60 dB below what loud speech has."""


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what validation made first must serve training, too
def hann(size: int, device: torch.device) -> Tensor:
    """Periodic Hann window [size]."""
    return torch.hann_window(size, device=device)


def log_magnitude(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """`wav` [B, S] to log-magnitudes [B, T, n_fft // 2 + 1], scaled to about unit variance for speech."""
    with torch.autocast(wav.device.type, enabled=False):
        return _scaled_log(analyse(wav, n_fft, hop_length).abs().clamp_min(_FLOOR))


def log_magnitude_and_phase(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """`wav` [B, S] to log-magnitudes, and cosine and sine of the phases: [B, T, 3 * (n_fft // 2 + 1)].

    Not the angle, which jumps between -pi and pi. The phase of a bin that is next to silent is noise, and fades out.
    """
    with torch.autocast(wav.device.type, enabled=False):
        spectrum = analyse(wav, n_fft, hop_length)
        size = spectrum.abs().clamp_min(_FLOOR)
        return torch.cat((_scaled_log(size), spectrum.real / size, spectrum.imag / size), -1)


def log_size(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """`wav` [B, S] to natural logarithms of magnitudes [B, T, n_fft // 2 + 1]."""
    return analyse(wav, n_fft, hop_length).abs().clamp_min(_FLOOR).log()


def analyse(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Complex spectra [B, T, n_fft // 2 + 1]."""
    samples = wav.shape[-1]
    frames = -(-samples // hop_length)
    edge = (n_fft - hop_length) // 2
    wav = F.pad(wav.float(), (edge, edge + frames * hop_length - samples))
    return torch.fft.rfft(wav.unfold(-1, n_fft, hop_length) * hann(n_fft, wav.device))


def _scaled_log(size: Tensor) -> Tensor:
    return (size.log() + 2.0) / 2.5


def overlap_add(spectrum: Tensor, hop_length: int) -> Tensor:
    """Complex frames [B, T, n_fft // 2 + 1] with n_fft = 2, 3, 4 … hops to a waveform [B, T * hop].

    Dividing by a constant, not by the sum of the windows at each sample, keeps every frame's share independent of its
    neighbours; adding shifted slices is far faster on a CPU than `F.fold`.
    """
    n_fft = 2 * (spectrum.shape[-1] - 1)
    overlap = n_fft // hop_length
    batch, frames, _ = spectrum.shape
    pieces = torch.fft.irfft(spectrum, n_fft) * (hann(n_fft, spectrum.device) / (0.375 * overlap))
    pieces = pieces.reshape(batch, frames, overlap, hop_length)
    total = sum(F.pad(pieces[:, :, k], (0, 0, k, overlap - 1 - k)) for k in range(overlap))
    edge = (n_fft - hop_length) // 2
    return torch.as_tensor(total).reshape(batch, -1)[:, edge : edge + frames * hop_length]
