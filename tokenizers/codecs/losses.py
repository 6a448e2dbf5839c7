"""Losses that codecs are trained with (TiCodec, eq. 1 and 2; HiFi-GAN, eq. 3 to 8).

Shapes: B waveforms of S samples; discriminators give one score map for each of their parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from valle.tokenizers.codecs.stft import hann


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # see `hann`
def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular filters, equally spaced on the mel scale of HTK and of equal area: [n_fft // 2 + 1, n_mels]."""

    def to_mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    edges = torch.linspace(0.0, to_mel(sample_rate / 2), n_mels + 2)
    hertz = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    low, centre, high = hertz[:-2], hertz[1:-1], hertz[2:]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0.0)
    return triangles / triangles.sum(0).clamp_min(1e-8)


def spectrum(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Complex spectra [B, frames, n_fft // 2 + 1] of `wav` [B, S], reflected at its ends; always fp32."""
    with torch.autocast(wav.device.type, enabled=False):
        wav = F.pad(wav.float()[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]
        return torch.fft.rfft(wav.unfold(-1, n_fft, hop_length) * hann(n_fft, wav.device))


class MultiMelLoss(nn.Module):
    """Mean absolute difference of log-mel spectra, summed over resolutions."""

    def __init__(self, sample_rate: int, resolutions: Sequence[tuple[int, int, int]], weights: Sequence[float]) -> None:
        """`resolutions`: (n_fft, hop_length, n_mels) of each; `weights`: their weights, relative to the first."""
        super().__init__()
        self.sample_rate = sample_rate
        self.resolutions = [(int(n), int(h), int(m)) for n, h, m in resolutions]
        self.weights = list(weights)

    def forward(self, wav: Tensor, target: Tensor) -> Tensor:
        """`wav` and `target` [B, 1, S]."""
        return self.distance(self.spectra(wav), self.spectra(target))

    def spectra(self, wav: Tensor) -> list[Tensor]:
        """Log-mel spectra [B, frames, n_mels] of `wav` [B, 1, S], one for each resolution; always fp32."""
        logs = []
        for n_fft, hop, n_mels in self.resolutions:
            filters = mel_filterbank(self.sample_rate, n_fft, n_mels).to(wav.device)
            # The square root's gradient is infinite at 0, hence the floor under the power.
            power = torch.view_as_real(spectrum(wav[:, 0], n_fft, hop)).square().sum(-1)
            with torch.autocast(wav.device.type, enabled=False):
                logs.append(((power.clamp_min(1e-9).sqrt() @ filters).clamp_min(1e-4)).log())
        return logs

    def distance(self, spectra: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The loss of what `spectra` gave."""
        pairs = zip(self.weights, spectra, targets, strict=True)
        return torch.stack([weight * F.l1_loss(log, target.detach()) for weight, log, target in pairs]).sum()


def spread_loss(spectra: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """How far the values of each band are spread otherwise than they should be, whatever their order in time.

    What cannot be told from few codes comes out as a mean: too even from frame to frame, and blurred from band to band.
    So the values of a band, and their differences to the next frame and the next band, are sorted along time before
    they are compared: their distributions are (as the Wasserstein distance in one dimension). It does in training what
    the "global variance" of Toda and Tokuda (2007) does in statistical synthesis.

    spectra, targets: [B, frames, bands] each; mean over them
    """

    def spreads(log: Tensor) -> list[Tensor]:
        return [x.sort(1).values for x in (log, log.diff(dim=1), log.diff(dim=2))]

    pairs = zip(spectra, targets, strict=True)
    parts = [F.l1_loss(a, b) for s, t in pairs for a, b in zip(spreads(s), spreads(t.detach()), strict=True)]
    return torch.stack(parts).mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the discriminators: real to 1, generated to 0; mean over them."""
    parts = [(1 - r.float()).square().mean() + f.float().square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(parts).mean()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the generator: its output to 1; mean over the discriminators."""
    return torch.stack([(1 - f.float()).square().mean() for f in fake]).mean()


def feature_matching_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], relative: bool = True
) -> Tensor:
    """Mean absolute difference of the discriminators' inner layers, mean over them.

    relative: to the mean size of the real ones, so that no layer outweighs the others (EnCodec, section 3.4)
    """
    parts = []
    for r, f in (
        (r.detach().float(), f.float()) for rs, fs in zip(real, fake, strict=True) for r, f in zip(rs, fs, strict=True)
    ):
        size = r.abs().mean().clamp_min(1e-4) if relative else 1.0
        parts.append(F.l1_loss(f, r) / size)
    return torch.stack(parts).mean()


def consistency_loss(representation: Tensor, other: Tensor) -> Tensor:
    """1 - cosine of TIRE of two segments of one utterance [B, D], no gradient into the second (TiCodec, eq. 1)."""
    return (1 - F.cosine_similarity(representation, other.detach(), dim=-1)).mean()
