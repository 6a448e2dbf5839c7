"""Discriminators: multi-period (HiFi-GAN, section 2.3) and spectrogram ones at several resolutions.

Each returns its score map and the outputs of its inner layers (for feature matching).
Shapes: B waveforms of S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from valle.tokenizers.codecs.losses import spectrum


@dataclass
class Verdict:
    """scores: one map for each discriminator; features: the inner layers of each."""

    scores: list[Tensor]
    features: list[list[Tensor]]


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample side by side: what is periodic in the waveform becomes an image column."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        sizes = (1, *channels)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in itertools.pairwise(sizes)
        )
        self.out = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`wav` [B, 1, S]."""
        wav = F.pad(wav, (0, -wav.shape[-1] % self.period), mode="reflect")
        x = wav.reshape(wav.shape[0], 1, -1, self.period).to(memory_format=torch.channels_last)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return self.out(x), features


class SpectrogramDiscriminator(nn.Module):
    """Sees complex spectra, their magnitudes compressed to the power 0.3, with the frequency bins as channels.

    The two-dimensional multi-scale STFT discriminator of EnCodec costs ten times a whole generator step on a CPU; over
    bins as channels the same view of the signal is a few matrix products.
    """

    def __init__(self, n_fft: int, hop_length: int, channels: int, layers: int = 3) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.embed = weight_norm(nn.Conv2d(n_fft + 2, channels, (1, 3), padding=(0, 1)))
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))) for _ in range(layers)
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, (1, 3), padding=(0, 1)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`wav` [B, 1, S]."""
        parts = torch.view_as_real(spectrum(wav[:, 0], self.n_fft, self.hop_length))
        size = parts.square().sum(-1, keepdim=True).clamp_min(1e-8)
        # Channels last, as the convolutions of height 1 like it: [B, bins * 2, 1, frames].
        x = (parts * size.pow((0.3 - 1) / 2)).flatten(2).transpose(1, 2).unsqueeze(2)
        features = []
        for conv in (self.embed, *self.convs):
            x = F.leaky_relu(conv(x), 0.1)
            features.append(x)
        return self.out(x), features


class Discriminators(nn.Module):
    """All discriminators of one training run."""

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (16, 32, 64, 128),
        resolutions: Sequence[tuple[int, int]] = ((1024, 256), (512, 128), (256, 64)),
        spectrogram_channels: int = 128,
    ) -> None:
        """`resolutions`: (n_fft, hop_length) of each spectrogram discriminator."""
        super().__init__()
        self.parts = nn.ModuleList(
            [PeriodDiscriminator(p, period_channels) for p in periods]
            + [SpectrogramDiscriminator(n, h, spectrogram_channels) for n, h in resolutions]
        )

    def forward(self, wav: Tensor) -> Verdict:
        """Judge `wav` [B, 1, S]."""
        verdicts = [part(wav) for part in self.parts]
        return Verdict([v[0] for v in verdicts], [v[1] for v in verdicts])
