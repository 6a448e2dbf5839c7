"""Short-time Fourier analysis and synthesis in frames that do not depend on padding.

Frame t is centred on the samples [t * hop, (t + 1) * hop) and the signal is zero outside its bounds, so that S samples
give ceil(S / hop) frames and T frames give T * hop samples, alone or within a padded batch.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=32)
def hann(size: int, device: torch.device) -> Tensor:
    """Periodic Hann window [size]."""
    return torch.hann_window(size, device=device)


def log_magnitude(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """`wav` [B, S] to log-magnitudes [B, T, n_fft // 2 + 1], scaled to about unit variance for speech."""
    samples = wav.shape[-1]
    frames = -(-samples // hop_length)
    edge = (n_fft - hop_length) // 2
    wav = F.pad(wav.float(), (edge, edge + frames * hop_length - samples))
    window = hann(n_fft, wav.device)
    with torch.autocast(wav.device.type, enabled=False):
        spectrum = torch.fft.rfft(wav.unfold(-1, n_fft, hop_length) * window)
        return (spectrum.abs().clamp_min(1e-3).log() + 2.0) / 2.5


def overlap_add(spectrum: Tensor, hop_length: int) -> Tensor:
    """Complex frames [B, T, n_fft // 2 + 1] with n_fft = 4 hops to a waveform [B, T * hop].

    Dividing by the window's constant sum 3/2, not by the sum at each sample, keeps every frame's share independent of
    its neighbours; adding four shifted slices is far faster on a CPU than `F.fold`.
    """
    n_fft = 4 * hop_length
    batch, frames, _ = spectrum.shape
    pieces = torch.fft.irfft(spectrum, n_fft) * (hann(n_fft, spectrum.device) / 1.5)
    pieces = pieces.reshape(batch, frames, 4, hop_length)
    total = sum(F.pad(pieces[:, :, k], (0, 0, k, 3 - k)) for k in range(4))
    edge = (n_fft - hop_length) // 2
    return torch.as_tensor(total).reshape(batch, -1)[:, edge : edge + frames * hop_length]
