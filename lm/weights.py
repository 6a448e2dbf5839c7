"""Language models on disk: one `.safetensors` file that carries its own config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.lm.ar import ARModel
from valle.lm.flow import FlowModel
from valle.lm.nar import NARModel

LanguageModel = ARModel | NARModel | FlowModel
MODELS: dict[str, type[LanguageModel]] = {"ar": ARModel, "nar": NARModel, "flow": FlowModel}


def build_lm(kind: str, config: dict[str, Any]) -> LanguageModel:
    """A new model of `kind` "ar", "nar" or "flow"; `config` is what `to_dict` of its config gave."""
    model_class: Any = MODELS[kind]
    return model_class(model_class.config_class.from_dict(config))


def save_lm(model: LanguageModel, folder: Path | str, kind: str, dtype: torch.dtype = torch.float16) -> Path:
    """Write `folder`/`kind`.safetensors, `kind` being "ar", "nar" or "flow"; gives its path."""
    path = Path(folder) / f"{kind}.safetensors"
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    overflown = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if overflown:
        raise UserError(
            f"{path}: {overflown[0]} is not finite as {dtype}; the training has diverged, use an earlier checkpoint"
        )
    save_file(tensors, path, metadata={"kind": kind, "config": json.dumps(model.config.to_dict())})
    return path


def load_lm(folder: Path | str, kind: str) -> LanguageModel:
    """The model that `save_lm` wrote, in float32 and eval mode; `folder`: see `find_model`.

    Raises `UserError` for a file that is damaged.
    """
    path = find_model(folder) / f"{kind}.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no such file; is this the folder of a model?")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != kind:
                raise UserError(f"{path}: holds a model of kind {metadata.get('kind')!r}, not {kind!r}")
            model = build_lm(kind, json.loads(metadata["config"]))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); copy the model folder again") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path} has other weights than this version's '{kind}' models; use the valle that made it, or train anew"
        ) from error
    return model.eval()


def from_checkpoint(checkpoint: Mapping[str, Any]) -> LanguageModel:
    """The model of a training checkpoint (its averaged weights, if it was trained with `EMA`), in eval mode."""
    if "lm_config" not in checkpoint:
        raise UserError("this is no checkpoint of a language model")
    model = build_lm(checkpoint["lm_kind"], checkpoint["lm_config"])
    weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    if checkpoint.get("lm_lora") is not None:
        add_lora(model, LoRAConfig(**checkpoint["lm_lora"]))
    model.load_state_dict(weights)
    if checkpoint.get("lm_lora") is not None:
        merge_lora(model)
    return model.requires_grad_(True).eval()


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
