"""A KV cache in which every row stands at its own place; decoding writes into it and seldom grows it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.config import LMConfig

PAGE = 256
"""The cache grows by whole pages, and by at least half of itself."""


def whole_pages(positions: int) -> int:
    """So many positions, or the few more that fill the last page."""
    return -(-positions // PAGE) * PAGE


class KVCache:
    """Keys and values of all layers: [layers, B, H, capacity, h].

    Before each forward pass `select` or `begin` says where the pass writes and what it sees.
    """

    def __init__(self, config: LMConfig, rows: int, device: torch.device | str, dtype: torch.dtype) -> None:
        # Zeros, not `empty`: a masked slot still takes part as 0 x value, and 0 x NaN is NaN.
        self.keys = torch.zeros(config.layers, rows, config.heads, PAGE, config.head_dim, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.lines = torch.arange(rows * config.heads, device=device).view(rows, config.heads)
        self.row, self.start, self.count, self.visible = 0, 0, 0, 0
        self.places: Tensor | None = None

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def reserve(self, positions: int) -> None:
        """Make room for so many positions in each row."""
        if positions > self.capacity:
            more = (0, 0, 0, whole_pages(max(positions, self.capacity * 3 // 2)) - self.capacity)
            self.keys, self.values = F.pad(self.keys, more), F.pad(self.values, more)

    def begin(self, row: int, start: int = 0) -> None:
        """The next pass fills one row from `start` on; it sees itself and what stands before it."""
        self.row, self.start, self.places = row, start, None

    def select(self, slots: Tensor, visible: int) -> None:
        """The next pass writes one position to `slots` [n] of rows 0..n-1 and sees their first `visible` positions."""
        self.count, self.visible = len(slots), visible
        self.places = (self.lines[: self.count] * self.capacity + slots[:, None]).flatten()

    def move(self, origin: int, to: int, size: int) -> None:
        """Copy the first `size` positions of row `origin` over those of row `to`."""
        self.keys[:, to, :, :size] = self.keys[:, origin, :, :size]
        self.values[:, to, :, :size] = self.values[:, origin, :, :size]

    def copy(self, row: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values [layers, H, stop - start, h] of a part of `row`."""
        return self.keys[:, row, :, start:stop].clone(), self.values[:, row, :, start:stop].clone()

    def paste(self, row: int, start: int, part: tuple[Tensor, Tensor]) -> None:
        """Write what `copy` gave to `row`, from `start` on."""
        for stored, copied in zip((self.keys, self.values), part, strict=True):
            stored[:, row, :, start : start + copied.shape[2]] = copied

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store `key` and `value` [n, H, S, h]; gives all that the pass sees, [n, H, visible, h]."""
        keys, values = self.keys[layer], self.values[layer]
        if self.places is None:
            stop = self.start + key.shape[2]
            keys[self.row, :, self.start : stop], values[self.row, :, self.start : stop] = key[0], value[0]
            if not self.start:
                return key, value
            return keys[self.row, None, :, :stop].to(key.dtype), values[self.row, None, :, :stop].to(value.dtype)
        for stored, new in ((keys, key), (values, value)):
            stored.view(-1, stored.shape[-1]).index_copy_(0, self.places, new.flatten(0, 2).to(stored.dtype))
        return keys[: self.count, :, : self.visible], values[: self.count, :, : self.visible]
