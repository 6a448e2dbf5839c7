"""Optimizer and learning-rate schedule of the language models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from valle.tokenizers.errors import UserError


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and a cosine that ends at the last step of the trainer."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 200
    final_lr_share: float = 0.02
    """Learning rate at the end, as a share of `lr`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.lr <= 0 or self.warmup_steps < 0 or not 0 <= self.final_lr_share <= 1:
            raise UserError("optimizer config: needs lr > 0, warmup_steps >= 0 and final_lr_share in 0..1")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW; only the weights of linear layers decay (embeddings, norms and biases do not)."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    decayed = [p for p in model.parameters() if id(p) in linear]
    others = [p for p in model.parameters() if id(p) not in linear]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, foreach=True)


def lr_share(step: int, total: int, config: OptimConfig) -> float:
    """Learning rate at `step` of `total`, as a share of `config.lr`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    return config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(optimizer: torch.optim.Optimizer, total: int, config: OptimConfig) -> LambdaLR:
    """The schedule of `lr_share`, stepped once per optimizer step."""
    return LambdaLR(optimizer, lambda step: lr_share(step, total, config))
