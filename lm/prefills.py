"""What rows of a KV cache begin with, computed once for all that begin alike: `Prefills`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from torch import Tensor, nn

Prefill = tuple[Tensor, Tensor]
"""Keys and values [layers, H, S, h] of some positions."""
LEAST = 2**25
"""Bytes: some ten prompts of 4 s of the embedded model."""


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
