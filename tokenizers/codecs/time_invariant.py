"""TiCodec's separable part: one representation of what does not change within an utterance (TiCodec, section 2.2).

It is read from an early layer of any encoder, quantized to G codes, and added to an early layer of the decoder.
Shapes: B utterances, C channels, T frames, D channels of the representation.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from valle.tokenizers.codecs.quantizers import GroupQuantizer, Quantized


class FiniteBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose running statistics, which never forget, take no notice of a batch that is not finite."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and not input.isfinite().all():
            return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(input)


class TimeInvariantEncoder(nn.Module):
    """TIRE: three convolutions, the mean over time, a linear layer and batch normalisation.

    The BatchNorm is in the authors' code but not in the paper: without it the consistency loss can be satisfied by a
    constant, and the representation collapses to one.
    """

    def __init__(self, channels: int, dim: int = 128, hidden: int = 64) -> None:
        super().__init__()
        sizes = (channels, hidden, hidden, dim)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(sizes))
        self.linear = nn.Linear(dim, dim)
        self.norm = FiniteBatchNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, C, T] and the frames that count, bool [B, T], to [B, D]."""
        keep = None if mask is None else mask[:, None].to(x.dtype)
        for conv in self.convs:
            x = F.leaky_relu(conv(x if keep is None else x * keep), 0.1)
        mean = x.mean(-1) if keep is None else (x * keep).sum(-1) / keep.sum(-1).clamp_min(1)
        return self.norm(F.leaky_relu(self.linear(mean), 0.1).float())


class TimeInvariant(nn.Module):
    """TIRE, group quantization and the way back to the decoder's channels."""

    def __init__(
        self,
        channels: int,
        groups: int = 8,
        size: int = 1024,
        dim: int = 128,
        decay: float = 0.998,
        project: bool = True,
    ) -> None:
        """`project=False` adds the quantized representation as it is, like the released TiCodec: `dim` = `channels`."""
        super().__init__()
        self.encoder = TimeInvariantEncoder(channels, dim)
        self.quantizer = GroupQuantizer(dim, groups, size, decay)
        self.out = nn.Linear(dim, channels) if project else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """Features [B, C, T] to the representation [B, D] before, and what it is after quantization."""
        representation = self.encoder(x, mask)
        return representation, self.quantizer(representation)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, G] to what is added to every frame of the decoder: [B, C]."""
        return self.out(self.quantizer.decode(codes))
