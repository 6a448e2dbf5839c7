"""Discriminators: by period and by scale (HiFi-GAN, section 2.3), and of spectra at several resolutions.

Each returns its score map and the outputs of its inner layers (for feature matching).
Shapes: B waveforms of S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from valle.tokenizers.codecs.losses import spectrum


@dataclass
class Verdict:
    """scores: one map for each discriminator; features: the inner layers of each."""

    scores: list[Tensor]
    features: list[list[Tensor]]


def _through(x: Tensor, convs: Iterable[nn.Module], out: nn.Module, slope: float = 0.1) -> tuple[Tensor, list[Tensor]]:
    """The score map of what a discriminator sees, and the outputs of its inner layers."""
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), slope)
        features.append(x)
    return out(x), features


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample side by side: what is periodic in the waveform becomes an image column."""

    def __init__(self, period: int, channels: Sequence[int], last_stride: int = 3) -> None:
        """`last_stride`: of the last inner layer; the others have 3."""
        super().__init__()
        self.period = period
        sizes, strides = (1, *channels), [3] * (len(channels) - 1) + [last_stride]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)))
            for (a, b), stride in zip(itertools.pairwise(sizes), strides, strict=True)
        )
        self.out = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`wav` [B, 1, S]."""
        wav = F.pad(wav, (0, -wav.shape[-1] % self.period), mode="reflect")
        x = wav.reshape(wav.shape[0], 1, -1, self.period).to(memory_format=torch.channels_last)
        return _through(x, self.convs, self.out)


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
        return _through(x, (self.embed, *self.convs), self.out)


class ScaleDiscriminator(nn.Module):
    """Sees the waveform, averaged over pairs of samples `halvings` times; grouped convolutions of growing width.

    The one of the undivided waveform is normalised by its spectrum, as in MelGAN and HiFi-GAN.
    """

    LAYERS = ((1, 8, 15, 1, 1), (8, 8, 41, 2, 4), (8, 16, 41, 2, 16), (16, 32, 41, 4, 16), (32, 64, 41, 4, 16))
    """Channels in and out (in sixty-fourths of the last layers' number), kernel, stride and groups."""

    def __init__(self, halvings: int, channels: int = 1024) -> None:
        """`channels`: of the last layers; a multiple of 128."""
        super().__init__()
        self.halvings = halvings
        norm = weight_norm if halvings else spectral_norm
        unit = channels // 64
        layers = [(unit * a if i else 1, unit * b, k, s, g) for i, (a, b, k, s, g) in enumerate(self.LAYERS)]
        layers += [(channels, channels, 41, 1, 16), (channels, channels, 5, 1, 1)]
        self.convs = nn.ModuleList(norm(nn.Conv1d(a, b, k, s, padding=k // 2, groups=g)) for a, b, k, s, g in layers)
        self.out = norm(nn.Conv1d(channels, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`wav` [B, 1, S]."""
        x = wav
        for _ in range(self.halvings):
            x = F.avg_pool1d(x, 4, 2, padding=2)
        return _through(x, self.convs, self.out)


class STFTDiscriminator(nn.Module):
    """Sees complex spectra as pictures: time by frequency, two colours (EnCodec, section 3.4)."""

    def __init__(self, n_fft: int, channels: int = 32) -> None:
        super().__init__()
        self.n_fft = n_fft

        def conv(inputs: int, kernel: tuple[int, int], stride: int = 1, dilation: int = 1) -> nn.Module:
            padding = (kernel[0] // 2 * dilation, kernel[1] // 2)
            return weight_norm(nn.Conv2d(inputs, channels, kernel, (1, stride), padding, (dilation, 1)))

        self.convs = nn.ModuleList(
            [
                conv(2, (3, 9)),
                *(conv(channels, (3, 9), stride=2, dilation=dilation) for dilation in (1, 2, 4)),
                conv(channels, (3, 3)),
            ]
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`wav` [B, 1, S]."""
        # Of unit power for a window of white noise of unit power, so that all resolutions are on one scale.
        x = torch.view_as_real(spectrum(wav[:, 0], self.n_fft, self.n_fft // 4)) / (self.n_fft * 3 / 8) ** 0.5
        x = x.permute(0, 3, 1, 2)
        return _through(x, self.convs, self.out, 0.2)


class Discriminators(nn.Module):
    """All discriminators of one training run."""

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (16, 32, 64, 128),
        resolutions: Sequence[tuple[int, int]] = ((1024, 256), (512, 128), (256, 64)),
        spectrogram_channels: int = 128,
        period_last_stride: int = 3,
        scales: int = 0,
        scale_channels: int = 1024,
        stft_sizes: Sequence[int] = (),
        stft_channels: int = 32,
    ) -> None:
        """
        Args:
            periods, period_channels, period_last_stride: of the period discriminators.
            resolutions: (n_fft, hop_length) of each spectrogram discriminator.
            scales: number of scale discriminators, each of half the other's rate.
            stft_sizes: n_fft of each two-dimensional STFT discriminator, slow without a GPU.
        """
        super().__init__()
        self.parts = nn.ModuleList(
            [PeriodDiscriminator(p, period_channels, period_last_stride) for p in periods]
            + [SpectrogramDiscriminator(n, h, spectrogram_channels) for n, h in resolutions]
            + [ScaleDiscriminator(halvings, scale_channels) for halvings in range(scales)]
            + [STFTDiscriminator(n, stft_channels) for n in stft_sizes]
        )

    def forward(self, wav: Tensor) -> Verdict:
        """Judge `wav` [B, 1, S]."""
        verdicts = [part(wav) for part in self.parts]
        return Verdict([v[0] for v in verdicts], [v[1] for v in verdicts])
