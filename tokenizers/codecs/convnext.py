"""ConvNeXt blocks over frames, channels last: the trunk of the spectral codecs (Vocos, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrameConv(nn.Conv1d):
    """A convolution over time of frames [B, T, C], channels last; `causal`: of a frame and those before it.

    Run as a two-dimensional convolution of height 1, whose channels-last layout is that of the frames: no copies, and
    several times faster on a CPU than Conv1d between two transposes.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1, causal: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, groups=groups)
        self.causal = causal

    def forward(self, input: Tensor) -> Tensor:
        x = input.transpose(1, 2).unsqueeze(2)
        past = self.kernel_size[0] - 1 if self.causal else self.kernel_size[0] // 2
        if self.causal:
            x = F.pad(x, (past, 0))
        x = F.conv2d(
            x, self.weight.unsqueeze(2), self.bias, padding=(0, 0 if self.causal else past), groups=self.groups
        )
        return x.squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron in each frame, with a scaled residual."""

    def __init__(self, dim: int, hidden: int, kernel: int = 7, scale: float = 0.1, causal: bool = False) -> None:
        super().__init__()
        self.depthwise = FrameConv(dim, dim, kernel, groups=dim, causal=causal)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, dim] to the same; frames where `mask` [B, T] is False are read as zero."""
        y = x if mask is None else x * mask[..., None]
        return x + self.scale * self.down(F.gelu(self.up(self.norm(self.depthwise(y)))))
