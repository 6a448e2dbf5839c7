"""A KV cache of fixed size, allocated once: decoding writes into it and never grows it."""

from __future__ import annotations

import torch
from torch import Tensor

from valle.lm.config import LMConfig


class KVCache:
    """Keys and values of all layers: [layers, B, capacity, H, h].

    Before each forward pass `select` says into which slots the pass writes. Rows may stand at different slots.
    """

    def __init__(
        self, config: LMConfig, batch: int, capacity: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        shape = (config.layers, batch, capacity, config.heads, config.head_dim)
        # Zeros, not `empty`: a masked slot still takes part as 0 x value, and 0 x NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.rows = torch.arange(batch, device=device)[:, None]
        self.slots = torch.zeros(batch, 0, dtype=torch.long, device=device)
        self.visible = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def select(self, slots: Tensor, visible: int) -> None:
        """The next pass writes to `slots` [B, S] and attends to the first `visible` slots, at most the capacity."""
        if visible > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, {visible} are needed")
        self.slots, self.visible = slots, visible

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store `key` and `value` [B, H, S, h]; gives all visible ones, [B, H, visible, h]."""
        place = (self.rows, self.slots)
        keys, values = self.keys[layer], self.values[layer]
        keys[place], values[place] = key.transpose(1, 2), value.transpose(1, 2)
        return keys[:, : self.visible].transpose(1, 2), values[:, : self.visible].transpose(1, 2)
