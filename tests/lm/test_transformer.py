"""The trunk against a slow reference that shares no code with it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from valle.lm.transformer import Transformer, attend, prefix_causal_mask


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def turn(x: Tensor, position: float, base: float) -> Tensor:
    """RoPE of one vector: pairs (i, i + h / 2) turned by position x base^(-2i / h)."""
    half = len(x) // 2
    out = x.clone()
    for i in range(half):
        angle = position * base ** (-i / half)
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def reference(w: dict[str, Tensor], config, x: Tensor, positions: list[int], allowed: Tensor) -> Tensor:
    """Hidden states [S, D] of one utterance `x` [S, D]."""
    width = config.dim // config.heads
    for layer in range(config.layers):
        p = f"blocks.{layer}."
        y = layer_norm(x, w[p + "attention_norm.norm.weight"], w[p + "attention_norm.norm.bias"])
        q, k, v = (y @ part.T for part in w[p + "attention.qkv.weight"].chunk(3))
        heads = []
        for head in range(config.heads):
            part = slice(head * width, (head + 1) * width)
            qh = torch.stack([turn(row[part], at, config.rope_base) for row, at in zip(q, positions, strict=True)])
            kh = torch.stack([turn(row[part], at, config.rope_base) for row, at in zip(k, positions, strict=True)])
            scores = torch.where(allowed, qh @ kh.T / math.sqrt(width), torch.tensor(-1e30))
            heads.append(scores.softmax(-1) @ v[:, part])
        x = x + torch.cat(heads, -1) @ w[p + "attention.out.weight"].T
        y = layer_norm(x, w[p + "ff_norm.norm.weight"], w[p + "ff_norm.norm.bias"])
        gate, up = (y @ part.T for part in w[p + "ff.gate_and_up.weight"].chunk(2))
        x = x + (gate * torch.sigmoid(gate) * up) @ w[p + "ff.down.weight"].T
    return layer_norm(x, w["norm.norm.weight"], w["norm.norm.bias"])


def test_trunk_equals_a_naive_transformer(make_config):
    torch.manual_seed(0)
    config = make_config()
    trunk = Transformer(config).eval()
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x, prefix = torch.randn(1, 9, config.dim), torch.tensor([[True, True, True, False]])
    positions = [0, 1, 2, 3, 0, 1, 2, 3, 4]
    allowed = torch.zeros(9, 9, dtype=torch.bool)
    for query in range(9):
        for key in range(9):
            allowed[query, key] = key < 3 or (query >= 4 and 4 <= key <= query)
    mask = prefix_causal_mask(prefix, 5)
    got = trunk(x, torch.tensor([positions]), mask)[0]
    torch.testing.assert_close(
        got, reference(trunk.state_dict(), config, x[0], positions, allowed), atol=1e-4, rtol=1e-4
    )


def test_stage_changes_every_norm(make_config):
    torch.manual_seed(0)
    trunk = Transformer(make_config(), adapt=lambda: torch.nn.Embedding(2, 64)).eval()
    x, mask, positions = torch.randn(2, 3, 32), torch.ones(2, 1, 1, 3, dtype=torch.bool), torch.arange(3)[None]
    stage = torch.tensor([0, 1])
    same = trunk(x[:1].repeat(2, 1, 1), positions, mask, stage)
    torch.testing.assert_close(same[0], same[1])  # a fresh model treats all stages alike
    norms = [m for m in trunk.modules() if getattr(m, "adapt", None) is not None]
    assert len(norms) == 2 * 2 + 1
    for norm in norms:
        before = trunk(x, positions, mask, stage)
        with torch.no_grad():
            norm.adapt.weight[1].add_(torch.randn(64))
        after = trunk(x, positions, mask, stage)
        torch.testing.assert_close(before[0], after[0])
        assert (before[1] - after[1]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 7])
def test_bf16_training_attention_equals_sdpa(size):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, size, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mask = torch.ones(size, size, dtype=torch.bool).tril().expand(2, 1, size, size)
    want = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    torch.testing.assert_close(attend(q, k, v, mask).float(), want, atol=0.03, rtol=0.03)
