"""The keys and values of decoding: `KVCache`, where every row stands at its own place, and `Prefills` of its rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.lm.config import LMConfig

Prefill = tuple[Tensor, Tensor]
"""Keys and values [layers, H, S, h] of some positions."""
LEAST = 2**25
"""Bytes: some ten prompts of 4 s of the embedded model."""
PAGE = 256
"""The cache grows by whole pages, and by at least half of itself."""


def whole_pages(positions: int) -> int:
    """So many positions, or the few more that fill the last page."""
    return -(-positions // PAGE) * PAGE


class KVCache:
    """Keys and values of all layers: [layers, B, H, capacity, h]. A forward pass uses a part of it, see `Slots`."""

    def __init__(self, config: LMConfig, rows: int, device: torch.device | str, dtype: torch.dtype) -> None:
        # Zeros, not `empty`: a masked slot still takes part as 0 x value, and 0 x NaN is NaN.
        self.keys = torch.zeros(config.layers, rows, config.heads, PAGE, config.head_dim, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.lines = torch.arange(rows * config.heads, device=device).view(rows, config.heads)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def reserve(self, positions: int) -> None:
        """Make room for so many positions in each row."""
        if positions > self.capacity:
            more = (0, 0, 0, whole_pages(max(positions, self.capacity * 3 // 2)) - self.capacity)
            self.keys, self.values = F.pad(self.keys, more), F.pad(self.values, more)

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


class Slots(Protocol):
    """Where one forward pass writes, and what it sees."""

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store `key` and `value` [n, H, S, h]; gives all that the pass sees, [n, H, visible, h]."""


@dataclass(frozen=True)
class RowSlots:
    """A pass that fills one row from `start` on; it sees itself and what stands before it."""

    cache: KVCache
    row: int
    start: int = 0

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.keys[layer, self.row], self.cache.values[layer, self.row]
        stop = self.start + key.shape[2]
        keys[:, self.start : stop], values[:, self.start : stop] = key[0], value[0]
        if not self.start:
            return key, value
        return keys[None, :, :stop].to(key.dtype), values[None, :, :stop].to(value.dtype)


class StepSlots:
    """A pass that writes one position to `slots` [n] of rows 0..n-1 and sees their first `visible` positions."""

    def __init__(self, cache: KVCache, slots: Tensor, visible: int) -> None:
        self.cache, self.count, self.visible = cache, len(slots), visible
        self.places = (cache.lines[: self.count] * cache.capacity + slots[:, None]).flatten()

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        for stored, new in ((keys, key), (values, value)):
            stored.view(-1, stored.shape[-1]).index_copy_(0, self.places, new.flatten(0, 2).to(stored.dtype))
        return keys[: self.count, :, : self.visible], values[: self.count, :, : self.visible]


class Prefills:
    """The prefills used last, of one model. Several threads may use it at once.

    limit: bytes that they may take together
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Hashable, Prefill] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def beside(cls, model: nn.Module) -> Prefills:
        """They may take as much memory as the weights of `model`, or `LEAST`."""
        return cls(max(LEAST, sum(p.numel() * p.element_size() for p in model.parameters())))

    def get(self, content: Hashable) -> Prefill | None:
        """The prefill of what `content` tells apart."""
        with self._lock:
            if content in self._kept:
                self._kept.move_to_end(content)
            return self._kept.get(content)

    def put(self, content: Hashable, prefill: Prefill) -> None:
        """Keep one, and forget those that have not been used for longest; one that is beyond the limit is not kept."""
        size = _bytes(prefill)
        with self._lock:
            if size > self.limit or content in self._kept:
                return
            self._kept[content] = prefill
            self.size += size
            while self.size > self.limit:
                self.size -= _bytes(self._kept.popitem(last=False)[1])


def _bytes(prefill: Prefill) -> int:
    return sum(tensor.nbytes for tensor in prefill)
