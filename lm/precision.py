"""A copy of the AR model that takes its steps faster: `for_steps`.

A step at small batches takes as long as reading the weights takes, so fewer bytes are fewer milliseconds. The precision
follows from the device alone, not from a timing, so that the same seed says the same on every run.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from valle.lm.ar import ARModel
from valle.tokenizers.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "int8")


def for_steps(model: ARModel, precision: str = "auto") -> ARModel:
    """The model for the single steps of `Decoder`: `model` itself (fp32), or a copy in bf16 or with int8 weights.

    auto: int8 on a CPU, bf16 on an NVIDIA GPU, else fp32
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision '{precision}'; known: {', '.join(PRECISIONS)}")
    kind = model.code.weight.device.type
    if precision == "auto":
        precision = {"cpu": "int8", "cuda": "bf16"}.get(kind, "fp32")
    if precision == "fp32":
        return model
    if precision == "int8" and kind != "cpu":
        raise UserError(f"precision int8 works on a CPU only, not on {kind}; leave out --precision")
    fast = deepcopy(model).requires_grad_(False)
    if precision == "int8":
        for module in list(fast.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
    return fast.to(torch.bfloat16)


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8 with one scale for each output; inputs and outputs are bf16.

    Weights are rounded, inputs are not. A row of the output depends on that row of the input alone, to the bit.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        full = linear.weight.detach().float()
        # The scale is bf16 before the weights are divided by it, so that its rounding does not add to theirs.
        scale = (full.abs().amax(dim=1) / 127).clamp(min=1e-8).to(torch.bfloat16)
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (full / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] of `x` [..., inputs]."""
        y = torch._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias
