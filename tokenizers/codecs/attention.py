"""Attention over the frames near by, in memory that grows with the length and not with its square."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NEVER = -1e4
"""A score that gets no attention. Not infinite: a frame that sees nothing, beyond an utterance's end, is no NaN."""


class LocalAttention(nn.Module):
    """Each frame attends to `past` frames before it and `future` after it, with a scaled residual.

    Where a frame lies is known from a learned bias for each distance (T5, section 2.1).
    Shapes: B utterances, T frames, H heads, N chunks of frames.
    """

    def __init__(self, dim: int, heads: int, past: int, future: int, scale: float = 0.1) -> None:
        super().__init__()
        self.heads, self.past, self.future = heads, past, future
        self.norm = nn.LayerNorm(dim)
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(heads, past + future + 1))
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, dim] to the same; frames where `mask` [B, T] is False are not attended to."""
        batch, frames, dim = x.shape
        if not frames:
            return x
        if mask is None:
            mask = torch.ones(batch, frames, dtype=torch.bool, device=x.device)
        chunk = self.past + self.future + 1
        fill = -frames % chunk
        query, key, value = self.project_in(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = F.pad(query, (0, 0, 0, fill)).unflatten(2, (-1, chunk))  # [B, H, N, chunk, D]
        key, value = (self._around(F.pad(y, (0, 0, 0, fill)), 2) for y in (key, value))  # [B, H, N, D, span]
        seen = self._around(F.pad(mask, (0, fill))[..., None], 1)[:, None]  # [B, 1, N, 1, span]
        bias = torch.where(seen, self._bias(x.device)[:, None], _NEVER)
        y = F.scaled_dot_product_attention(
            query, key.transpose(-1, -2), value.transpose(-1, -2), attn_mask=bias.to(query.dtype)
        )
        y = y.flatten(2, 3)[:, :, :frames].transpose(1, 2).reshape(batch, frames, dim)
        return x + self.scale * self.project_out(y)

    def _around(self, x: Tensor, axis: int) -> Tensor:
        """The frames that each chunk sees, as a new last axis, of `x` with frames in `axis` and one more after it."""
        chunk = self.past + self.future + 1
        return F.pad(x, (0, 0, self.past, self.future)).unfold(axis, self.past + chunk + self.future, chunk)

    def _bias(self, device: torch.device) -> Tensor:
        """What is added to the scores of a chunk's frames with those it sees: [H, chunk, span]."""
        chunk = self.past + self.future + 1
        spans = torch.arange(self.past + chunk + self.future, device=device) - self.past
        index = spans[None] - torch.arange(chunk, device=device)[:, None] + self.past
        near = (index >= 0) & (index < chunk)
        return self.bias[:, index.clamp(0, chunk - 1)].masked_fill(~near, _NEVER)
