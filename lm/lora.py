"""Low-rank adaptation (LoRA, arXiv 2106.09685) of a language model, through `peft`.

Each linear layer W of the transformer becomes W + scale · B A with small A and B; only these are trained. A finished
model has them added into W, so it needs neither `peft` nor anything else that it did not need before.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from valle.common.errors import UserError


@dataclass(frozen=True)
class LoRAConfig:
    """Which layers are adapted, and how much."""

    rank: int = 16
    alpha: int = 32
    """The adaptation is scaled by `alpha` / `rank`."""
    layers: tuple[str, ...] = ("qkv", "out", "gate_and_up", "down")

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # YAML has no tuples
        if self.rank < 1 or self.alpha <= 0 or not self.layers:
            raise UserError("LoRA: rank and alpha must be above 0, and layers not empty")


def add_lora(model: nn.Module, config: LoRAConfig) -> None:
    """Adapt `model` in place: afterwards only the new weights require gradients."""
    from peft import LoraConfig, inject_adapter_in_model

    options = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.layers))
    try:
        inject_adapter_in_model(options, model)
    except ValueError as error:
        raise UserError(f"LoRA: the model has no layers named {', '.join(config.layers)}: {error}") from error


def merge_lora(model: nn.Module) -> None:
    """Add the adaptation into the layers and remove it, in place."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
