"""The transformer of both language models: pre-norm, rotary positions, SwiGLU, optional KV cache and adaptive norm.

Shapes: B utterances, S positions, D width, H heads, h = D / H.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from valle.lm.config import LMConfig
from valle.lm.kv_cache import Slots

Adapt = Callable[[], nn.Module]
"""Makes the layer that turns a condition into scale and shift [B, 2 D]: an embedding or a linear layer."""


class Norm(nn.Module):
    """LayerNorm; with `adapt`, its scale and shift depend on a condition (adaptive LayerNorm, VALL-E section 4.2.2)."""

    def __init__(self, dim: int, adapt: Adapt | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.adapt = None if adapt is None else adapt()
        if self.adapt is not None:
            for parameter in self.adapt.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Normalise `x` [B, S, D]; `condition` [B, ...]."""
        x = self.norm(x)
        if self.adapt is None:
            return x
        scale, shift = self.adapt(condition)[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, x, 1 + scale)


class Rotary(nn.Module):
    """Rotary position embedding (RoFormer, arXiv 2104.09864), halves layout."""

    exponents: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.base = base
        # Integers, not the frequencies: a strategy that casts the whole model to bf16 (DeepSpeed) would round those.
        self.register_buffer("exponents", torch.arange(0, head_dim, 2), persistent=False)
        self.head_dim = head_dim

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B or 1, S, 1, h / 2] of `positions` [B or 1, S]."""
        frequencies = self.base ** (self.exponents.float() / -self.head_dim)
        angles = positions[:, :, None, None].float() * frequencies
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn `x` [B, S, H, h] by the angles whose cosines and sines [B or 1, S, 1, h / 2] are given."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention [B, H, S, h] of queries [B, H, S, h] to keys and values [B, H, K, h]; `mask` as in `Transformer`."""
    if q.device.type == "cpu" and q.shape[2] == 1:
        # A step of decoding. For so few products the fused kernel is slower in bf16 (440 against 80 us for 4 heads and
        # 1,000 positions); in fp32, with several threads, its rounding depends on how many rows there are.
        scores = torch.matmul(q.to(k.dtype), k.transpose(2, 3)) * q.shape[3] ** -0.5
        return torch.matmul(scores.where(mask, float("-inf")).softmax(dim=-1), v).to(q.dtype)
    if not (q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    # Training on a CPU in bf16: forward and backward by plain matrix products take half the time of the fused kernel
    # (26 against 54 ms for 4 x 6 heads, 400 positions, 64 wide).
    batch, heads, size, width = q.shape
    bias = q.new_zeros(mask.shape).masked_fill(~mask, float("-inf")).expand(batch, heads, size, k.shape[2])
    scores = torch.baddbmm(bias.flatten(0, 1), q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(scores.softmax(dim=-1), v.flatten(0, 1)).view(batch, heads, size, width)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, slots: Slots | None, layer: int
    ) -> Tensor:
        batch, size, dim = x.shape
        qk, v = self.qkv(x).view(batch, size, 3 * self.heads, self.head_dim).split((2 * self.heads, self.heads), dim=2)
        cos, sin = rotary
        q, k = rotate(qk, cos.to(qk.dtype), sin.to(qk.dtype)).chunk(2, dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if slots is not None:
            k, v = slots.write(layer, k, v)
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(batch, size, dim))


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(config.dim, 2 * config.ff, bias=False)
        self.down = nn.Linear(config.ff, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: LMConfig, adapt: Adapt | None) -> None:
        super().__init__()
        self.attention_norm = Norm(config.dim, adapt)
        self.attention = Attention(config)
        self.ff_norm = Norm(config.dim, adapt)
        self.ff = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        condition: Tensor | None,
        slots: Slots | None,
        layer: int,
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x, condition), rotary, mask, slots, layer))
        return x + self.dropout(self.ff(self.ff_norm(x, condition)))


class Transformer(nn.Module):
    """A stack of blocks over embedded inputs. `adapt` makes every norm depend on a condition, as the NAR's stage."""

    def __init__(self, config: LMConfig, adapt: Adapt | None = None) -> None:
        super().__init__()
        self.rotary = Rotary(config.head_dim, config.rope_base)
        self.blocks = nn.ModuleList(Block(config, adapt) for _ in range(config.layers))
        self.norm = Norm(config.dim, adapt)
        self.recompute = False
        """In training, keep only the input of each block and compute the rest again for the backward pass."""
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                # GPT-2: the residual stream adds 2 x layers branches; this keeps its variance.
                nn.init.normal_(parameter, std=0.02 / (2 * config.layers) ** 0.5)
            elif name.endswith(("qkv.weight", "gate_and_up.weight")):
                nn.init.normal_(parameter, std=0.02)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        condition: Tensor | None = None,
        slots: Slots | None = None,
    ) -> Tensor:
        """Hidden states [B, S, D] of the embedded inputs `x` [B, S, D].

        positions: [B or 1, S], each part of the sequence counted by itself
        mask:      bool [B, 1, S or 1, keys], True where a query may attend; keys are what `slots` let it see
        condition: [B, ...], what `adapt` turns into scales and shifts
        """
        rotary = self.rotary(positions)
        for layer, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x = checkpoint(block, x, rotary, mask, condition, slots, layer, use_reentrant=False)
            else:
                x = block(x, rotary, mask, condition, slots, layer)
        return self.norm(x, condition)


def prefix_causal_mask(prefix: Tensor, frames: int, prompt: Tensor | None = None) -> Tensor:
    """Mask [B, 1, S, S] of [prefix | frames]: the prefix sees itself both ways, frames see it and the past.

    `prefix` bool [B, P] is True for the tokens that exist. Padded frames need no mask: no earlier frame sees them.
    `prompt` bool [B, S], if given, is True for what sees nothing but its like.
    """
    size = prefix.shape[1]
    mask = torch.ones(size + frames, size + frames, dtype=torch.bool, device=prefix.device).tril()
    mask[:size, :size] = True
    exists = F.pad(prefix, (0, frames), value=True)
    mask = mask & exists[:, None, None, :]
    return mask if prompt is None else mask & (prompt[:, None, None, :] | ~prompt[:, None, :, None])
