"""The convolutional encoder and decoder of HiFi-Codec and TiCodec, as the authors' released code computes them.

The decoder is HiFi-GAN's generator (arXiv 2010.05646, section 2.2); the encoder mirrors it, with a GroupNorm after each
sum. Everything beyond an utterance's end is held at zero, and left out of the GroupNorm's statistics: it is then what
the convolutions' own zero padding would be, and a padded batch equals one utterance at a time.
Shapes: B utterances, S samples, T frames, C channels, L steps in time at the rate of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from valle.common.errors import UserError
from valle.tokenizers.codecs.autoencoder import FrameEncoder
from valle.tokenizers.codecs.disguise import Disguise

SLOPE = 0.1
NORM_GROUP = 16
"""Channels that share the statistics of a GroupNorm."""


def at_rate(mask: Tensor | None, rate: int) -> Tensor | None:
    """Mask of frames [B, T] to one of steps [B, 1, T * rate]."""
    return None if mask is None else mask.repeat_interleave(rate, 1)[:, None]


def keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` [B, C, L] with zeros where `mask` [B, 1, L] is False."""
    return x if mask is None else x * mask


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm over the steps that count, zero at the others."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """`input` [B, C, L], zero where `mask` [B, 1, L] is False."""
        if mask is None:
            return super().forward(input)
        batch, channels, _ = input.shape
        # Sums, not means of a slice: one pass over the batch, whatever the lengths.
        count = mask.sum((1, 2)).clamp_min(1)[:, None] * (channels // self.num_groups)
        mean = self._per_channel(input.reshape(batch, self.num_groups, -1).sum(-1) / count)
        centred = (input - mean) * mask
        variance = centred.square().reshape(batch, self.num_groups, -1).sum(-1) / count
        scale = self._per_channel(torch.rsqrt(variance + self.eps)) * self.weight[:, None]
        return (centred * scale + self.bias[:, None]) * mask

    def _per_channel(self, statistic: Tensor) -> Tensor:
        return statistic.repeat_interleave(self.num_channels // self.num_groups, 1)[..., None]


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair added to its input (HiFi-GAN, appendix A.1)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = (kernel - 1) * dilation // 2
            return weight_norm(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding))

        self.dilated = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, C, L] to the same."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            y = keep(dilated(F.leaky_relu(x, SLOPE)), mask)
            x = x + keep(plain(F.leaky_relu(y, SLOPE)), mask)
        return x


class DownStage(nn.Module):
    """A strided convolution, then residual blocks side by side; their running sum is normalised after each."""

    def __init__(
        self, channels: int, rate: int, kernel: int, kernels: Sequence[int], dilations: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        out = 2 * channels
        self.resample = weight_norm(nn.Conv1d(channels, out, kernel, rate, padding=(kernel - rate) // 2))
        self.blocks = nn.ModuleList(ResidualBlock(out, k, d) for k, d in zip(kernels, dilations, strict=True))
        self.norms = nn.ModuleList(MaskedGroupNorm(out // NORM_GROUP, out, eps=1e-6) for _ in kernels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, C, L * rate] to [B, 2 C, L]; `mask` is that of the output."""
        x = keep(self.resample(F.leaky_relu(x, SLOPE)), mask)
        total = torch.zeros_like(x)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            total = norm(total + block(x, mask), mask)
        return total / len(self.blocks)


class UpStage(nn.Module):
    """A transposed convolution, then the mean of residual blocks side by side."""

    def __init__(
        self, channels: int, rate: int, kernel: int, kernels: Sequence[int], dilations: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        out = channels // 2
        self.resample = weight_norm(nn.ConvTranspose1d(channels, out, kernel, rate, padding=(kernel - rate) // 2))
        self.blocks = nn.ModuleList(ResidualBlock(out, k, d) for k, d in zip(kernels, dilations, strict=True))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, C, L] to [B, C / 2, L * rate]; `mask` is that of the output."""
        x = keep(self.resample(F.leaky_relu(x, SLOPE)), mask)
        total = torch.zeros_like(x)
        for block in self.blocks:
            total = total + block(x, mask)
        return total / len(self.blocks)


class ConvEncoder(FrameEncoder):
    """Waveforms to frames; each of the stages doubles the channels. The early layer is half of them."""

    def __init__(
        self,
        channels: int,
        rates: Sequence[int],
        kernels: Sequence[int],
        residual_kernels: Sequence[int],
        residual_dilations: Sequence[Sequence[int]],
    ) -> None:
        """`channels`: those of the output; rates and kernels are in the order of the stages."""
        super().__init__()
        self.hop_length = math.prod(rates)
        self.rates = [self.hop_length // done for done in accumulate(rates, mul)]
        width = channels >> len(rates)
        self.first = weight_norm(nn.Conv1d(1, width, 7, padding=3))
        self.stages = nn.ModuleList(
            DownStage(width << i, rate, kernel, residual_kernels, residual_dilations)
            for i, (rate, kernel) in enumerate(zip(rates, kernels, strict=True))
        )
        self.last = nn.Conv1d(channels, channels, 3, padding=1)
        self.early = len(rates) // 2

    def early_features(self, wav: Tensor, mask: Tensor | None = None, disguise: Disguise | None = None) -> Tensor:
        if disguise is not None:
            raise UserError("this codec's encoder reads waveforms, not spectra: they cannot be disguised")
        wav = F.pad(wav, (0, -wav.shape[-1] % self.hop_length))
        x = keep(self.first(wav[:, None]), at_rate(mask, self.hop_length))
        return self._run(x, slice(0, self.early), mask).transpose(1, 2)

    def forward(self, early: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self._run(early.transpose(1, 2), slice(self.early, None), mask)
        # The default slope of PyTorch, here alone: a slip of the authors that their weights have learned with.
        return self.last(F.leaky_relu(x, 0.01)).transpose(1, 2)

    def _run(self, x: Tensor, part: slice, mask: Tensor | None) -> Tensor:
        for stage, rate in zip(self.stages[part], self.rates[part], strict=True):
            x = stage(x, at_rate(mask, rate))
        return x


class ConvDecoder(nn.Module):
    """Frames to waveforms; each of the stages halves the channels. The time-invariant part enters half-way."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        kernels: Sequence[int],
        residual_kernels: Sequence[int],
        residual_dilations: Sequence[Sequence[int]],
    ) -> None:
        """`channels`: those of the first stage's input."""
        super().__init__()
        self.rates = list(accumulate(rates, mul))
        self.first = weight_norm(nn.Conv1d(in_channels, channels, 7, padding=3))
        self.stages = nn.ModuleList(
            UpStage(channels >> i, rate, kernel, residual_kernels, residual_dilations)
            for i, (rate, kernel) in enumerate(zip(rates, kernels, strict=True))
        )
        self.last = weight_norm(nn.Conv1d(channels >> len(rates), 1, 7, padding=3))
        self.middle = len(rates) // 2

    def forward(self, x: Tensor, time_invariant: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`x` [B, T, C], `mask` bool [B, T] to a waveform [B, S]; `time_invariant` [B, C'] is added to all steps."""
        steps = at_rate(mask, 1)
        x = keep(self.first(keep(x.transpose(1, 2), steps)), steps)
        for i, (stage, rate) in enumerate(zip(self.stages, self.rates, strict=True)):
            if i == self.middle and time_invariant is not None:
                x = keep(x + time_invariant[..., None], steps)
            steps = at_rate(mask, rate)
            x = stage(x, steps)
        return torch.tanh(self.last(F.leaky_relu(x, SLOPE)))[:, 0]
