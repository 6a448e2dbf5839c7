"""Cross-entropies of the language models and the accuracies reported beside them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.alignment import IGNORE


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the targets [...] that are not `IGNORE`, of logits [..., K]; 0 if there are none."""
    count = (targets != IGNORE).sum().clamp(min=1)
    summed = F.cross_entropy(
        logits.flatten(0, -2),
        targets.flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return summed / count


@torch.no_grad()
def accuracy(logits: Tensor, targets: Tensor, top: int) -> Tensor:
    """Share of the targets [...] that are among the `top` best of logits [..., K]."""
    valid = targets != IGNORE
    score = logits.gather(-1, targets.clamp(min=0)[..., None])
    # The rank by counting: a sort of all logits would cost more than the head that made them.
    hit = (logits > score).sum(dim=-1) < top
    return (hit & valid).sum() / valid.sum().clamp(min=1)
