"""The pitch of speech, tracked by autocorrelation (Boersma 1993, "Accurate short-term analysis of the fundamental
frequency"), in batches and fast enough to be done in every training step.

Shapes: B utterances, S samples, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.tokenizers.codecs.stft import hann

LOWEST, HIGHEST = 55.0, 550.0
"""Hz; the range of speech."""
WINDOW = 0.048
"""Seconds of a frame."""
HEARD = 2000.0
"""Hz; above it peaks would be too sharp for the lags, which are whole samples."""
PERIODIC = 0.5
"""Share of a frame's power that must come back after a period, for the frame to have a pitch."""
QUIET = 1e-3
"""RMS of frames that have none, whatever they are."""
OCTAVE = 0.05
"""What a peak at half the pitch must be higher by to be believed."""
JUMP = 0.2
"""A frame further away from the median of the five around it, in natural logarithms, is an error of an octave."""


@torch.no_grad()
def track_pitch(wav: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """`wav` [B, S] to the pitch in Hz of each frame [B, T], T = ceil(S / hop_length); 0 where there is none."""
    longest, shortest = int(sample_rate / LOWEST), int(sample_rate / HIGHEST)
    size = 2 * int(sample_rate * WINDOW / 2)
    frames = -(-wav.shape[-1] // hop_length)
    edge = (size - hop_length) // 2
    with torch.autocast(wav.device.type, enabled=False):
        wav = F.pad(wav.float(), (edge, edge + frames * hop_length - wav.shape[-1]))
        pieces = wav.unfold(-1, size, hop_length)
        pieces = pieces - pieces.mean(-1, keepdim=True)
        window = hann(size, wav.device)
        same = _autocorrelation(pieces * window, int(2 * size * HEARD / sample_rate))[..., : longest + 2]
        power = same[..., :1].clamp_min(1e-9)
        same = same / power / (_autocorrelation(window)[: longest + 2] / window.square().sum())
    lags = torch.arange(longest + 2, device=wav.device)
    favour = same - OCTAVE * (lags.clamp_min(1) / shortest).log2()
    peak = (same[..., 1:-1] >= same[..., :-2]) & (same[..., 1:-1] >= same[..., 2:])
    peak = F.pad(peak, (1, 1)) & (lags >= shortest)
    best = favour.masked_fill(~peak, -torch.inf).argmax(-1, keepdim=True)
    left, at, right = (same.gather(-1, (best + d).clamp(0, longest + 1)) for d in (-1, 0, 1))
    bend = (left - 2 * at + right).clamp(max=-1e-6)
    lag = best + ((left - right) / (2 * bend)).clamp(-1, 1)
    loud = power / window.square().sum() > QUIET**2
    hz = torch.where(peak.any(-1, keepdim=True) & (at > PERIODIC) & loud, sample_rate / lag, 0.0)[..., 0]
    return _without_jumps(hz)


def _autocorrelation(pieces: Tensor, bins: int | None = None) -> Tensor:
    """[..., size] to the same, without wrapping round; of the lowest `bins` of 2 * size frequencies alone, if given."""
    size = pieces.shape[-1]
    power = torch.fft.rfft(pieces, 2 * size).abs().square()
    if bins is not None:
        power[..., bins:] = 0
    return torch.fft.irfft(power, 2 * size)[..., :size]


def _without_jumps(hz: Tensor) -> Tensor:
    """`hz` [B, T] without the frames that are off the median of those around them that have a pitch."""
    around = F.pad(hz, (2, 2)).unfold(-1, 5, 1)
    median = around.masked_fill(around == 0, torch.nan).nanmedian(-1).values
    keep = (hz > 0) & ((around > 0).sum(-1) >= 3) & ((hz / median).log().abs() < JUMP)
    return torch.where(keep, hz, 0.0)
