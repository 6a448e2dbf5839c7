"""Optimizer and learning-rate schedule of the language models, and what any training does about bad steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from valle.common.errors import UserError


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up, then one of three schedules.

    "cosine" and "linear" (VALL-E section 5.1) end at the last step of the trainer. "eden" knows no end: it falls with
    the step and with the epoch, as (1 + (step / eden_steps)²)^-1/4 · (1 + (epoch / eden_epochs)²)^-1/4 (icefall; the
    recipe of lifeiteng/vall-e, which TiCodec's authors used).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 200
    final_lr_share: float = 0.02
    """Learning rate at the end, as a share of `lr`. Not for "eden"."""
    schedule: Literal["cosine", "linear", "eden"] = "cosine"
    eden_steps: int = 5000
    eden_epochs: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.lr <= 0 or self.warmup_steps < 0 or not 0 <= self.final_lr_share <= 1:
            raise UserError("optimizer config: needs lr > 0, warmup_steps >= 0 and final_lr_share in 0..1")
        if min(self.eden_steps, self.eden_epochs) <= 0:
            raise UserError("optimizer config: eden_steps and eden_epochs must be above 0")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW; only the weights of linear layers decay (embeddings, norms and biases do not)."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if id(p) in linear]
    others = [p for p in trained if id(p) not in linear]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, foreach=True)


def lr_share(step: int, total: int, config: OptimConfig, steps_per_epoch: float = math.inf) -> float:
    """Learning rate at `step` of `total`, as a share of `config.lr`."""
    if config.schedule == "eden":
        warmup = min(1.0, 0.5 + 0.5 * step / config.warmup_steps) if config.warmup_steps else 1.0
        epoch = step // steps_per_epoch
        falling = (1 + (step / config.eden_steps) ** 2) * (1 + (epoch / config.eden_epochs) ** 2)
        return warmup * falling**-0.25
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    left = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_lr_share + (1 - config.final_lr_share) * left


def build_schedule(
    optimizer: torch.optim.Optimizer, total: int, config: OptimConfig, steps_per_epoch: float = math.inf
) -> LambdaLR:
    """The schedule of `lr_share`, stepped once per optimizer step."""
    return LambdaLR(optimizer, lambda step: lr_share(step, total, config, steps_per_epoch))


class BadSteps:
    """Counts optimizer steps that are skipped because the gradient is not finite: `skipped` in all, and `in_a_row`.

    most_in_a_row: so many end the training: one bad batch is bad luck, but weights that give no finite gradient for
                   anything never will again
    advice:        what to do then, for the message
    """

    def __init__(self, most_in_a_row: int, advice: str) -> None:
        self.most_in_a_row, self.advice = most_in_a_row, advice
        self.skipped = self.in_a_row = 0

    def count(self, finite: bool) -> None:
        """Take note of a step. Raises `UserError` when it is one bad step too many."""
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= self.most_in_a_row:
            raise UserError(f"training: the gradient was not finite {self.in_a_row} steps in a row; {self.advice}")
