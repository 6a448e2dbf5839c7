"""How much of its codebooks a codec in training uses."""

from __future__ import annotations

import torch
from torch import Tensor

_COLLAPSED = 0.05
"""Share of a codebook's size. Healthy ones have a perplexity of a third of it and more."""
_EVIDENCE = 0.5
"""Codes seen for each code of the codebook: of so many drawn evenly, the perplexity is far above a collapsed one's."""


class CodebookUsage:
    """Which codes were chosen lately: counts [n, K], halved at every reading."""

    def __init__(self, n: int, size: int) -> None:
        self.counts = torch.zeros(n, size)

    def add(self, codes: Tensor) -> None:
        """Count `codes` [..., n]."""
        for counts, column in zip(self.counts, codes.reshape(-1, codes.shape[-1]).T.cpu(), strict=True):
            counts += torch.bincount(column, minlength=counts.numel())

    def known(self, codebook: int) -> bool:
        """Whether enough was counted to judge."""
        return float(self.counts[codebook].sum()) >= _EVIDENCE * self.counts.shape[1]

    def read(self) -> list[tuple[int, float]]:
        """(codes in use, perplexity) of each codebook."""
        share = self.counts / self.counts.sum(1, keepdim=True).clamp_min(1)
        perplexity = torch.exp(-(share * share.clamp_min(1e-12).log()).sum(1))
        used = (self.counts > 0).sum(1)
        self.counts = (self.counts / 2).floor()
        return list(zip(used.tolist(), perplexity.tolist(), strict=True))


def collapse(usage: CodebookUsage, codebook: int, perplexity: float) -> str | None:
    """What to say of a codebook with this perplexity, if it has collapsed."""
    size = usage.counts.shape[1]
    if perplexity >= _COLLAPSED * size or not usage.known(codebook):
        return None
    return (
        f"has collapsed: perplexity {perplexity:.1f} of {size} codes. Give its commitment loss more weight, lower the "
        "learning rate, or train with more varied data"
    )
