"""Which device to compute on."""

from __future__ import annotations

import torch

from valle.tokenizers.errors import UserError


def find_device(device: str) -> torch.device:
    """`auto` is the best device there is. Raises `UserError` for one that is not there."""
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{device}' cannot be used here; try --device cpu") from error
