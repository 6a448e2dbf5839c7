"""A copy of the AR model that takes its steps faster: `for_steps`.

A step at small batches takes as long as reading the weights takes, so fewer bytes are fewer milliseconds. The precision
follows from the device alone, not from a timing, so that the same seed says the same on every run.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from valle.common.errors import UserError
from valle.lm.ar import ARModel

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def for_steps(model: ARModel, precision: str = "auto") -> ARModel:
    """The model for the single steps of `Decoder`: `model` itself (fp32), or a copy: bf16, fp16 or int8 weights.

    auto: int8 on a CPU, bf16 on an NVIDIA GPU, else fp32
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision '{precision}'; known: {', '.join(PRECISIONS)}")
    kind = model.code.weight.device.type
    if precision == "auto":
        precision = {"cpu": "int8", "cuda": "bf16"}.get(kind, "fp32")
    if precision == "fp32":
        return model
    if precision in LINEAR and kind != "cpu":
        raise UserError(f"precision {precision} works on a CPU only, not on {kind}; leave out --precision")
    if precision == "fp16" and "fbgemm" not in torch.backends.quantized.supported_engines:
        raise UserError("precision fp16 needs FBGEMM, which torch has on x86 CPUs only; leave out --precision")
    fast = deepcopy(model).requires_grad_(False)
    if linear := LINEAR.get(precision):
        for module in list(fast.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, linear(child))
    return fast if precision == "fp16" else fast.to(torch.bfloat16)


class Fp16Linear(nn.Module):
    """A linear layer whose weights are fp16; inputs, outputs and sums are fp32.

    Its product reads weights nearly as fast as memory gives them (FBGEMM), which pays where they do not fit into a
    cache. A row of the output depends on that row of the input alone, to the bit.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().float(), bias)
        self.weight_bytes = 2 * linear.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] of `x` [..., inputs]."""
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


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


LINEAR = {"fp16": Fp16Linear, "int8": Int8Linear}
