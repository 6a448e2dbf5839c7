"""The AR model one step at a time.

Shapes: B requests, L text tokens, G time-invariant codes, P = G + L.
"""

from __future__ import annotations

import torch
from torch import Tensor

from valle.lm.ar import ARLogits, ARModel
from valle.lm.cache import KVCache
from valle.lm.request import RequestBatch
from valle.lm.transformer import prefix_causal_mask


class CachedAR:
    """An `ARModel` in the middle of a batch: gives the logits of one step after another from its KV cache."""

    def __init__(self, model: ARModel, inputs: RequestBatch, max_new: int) -> None:
        self.model = model
        self.device = inputs.phonemes.device
        self.prefix = model.prefix(inputs.phonemes, inputs.phoneme_lengths, inputs.time_invariant)
        self.legal = model.legal_advances(inputs.phonemes, inputs.phoneme_lengths) if model.config.aligned else None
        steps = model.steps(inputs.phoneme_lengths, inputs.codes[:, 0], inputs.code_lengths, inputs.durations)
        batch, self.size = self.prefix.exists.shape
        self.filled = steps.previous.shape[1]
        self.time = inputs.code_lengths
        capacity = self.size + self.filled + max_new
        self.cache = KVCache(model.config, batch, capacity, self.device, self.prefix.x.dtype)
        self.slots = torch.arange(capacity, device=self.device)

        frames = model.embed(self.prefix, steps.previous, steps.pointers, steps.spent)
        counters = torch.cat((self.slots[: self.size], self.slots[: self.filled]))
        visible = self.size + self.filled
        self.cache.select(self.slots[:visible].expand(batch, visible), visible)
        mask = prefix_causal_mask(self.prefix.exists, self.filled)
        x = torch.cat((self.prefix.x, frames), dim=1)
        hidden = model.transformer(x, counters[None], mask, cache=self.cache)
        # Each row goes on from the end of its own prompt.
        rows = torch.arange(batch, device=self.device)
        last = hidden[rows, self.size + self.time][:, None]
        self.pointers = None if steps.pointers is None else steps.pointers[rows, self.time]
        self.first = self._logits(last, self.pointers)

    def step(self, previous: Tensor, pointers: Tensor | None, spent: Tensor | None) -> ARLogits:
        """Logits [B, ...] of the next step, after `previous` [B]; `pointers` [B] and `spent` [B] if aligned."""
        self.time = self.time + 1
        self.filled += 1
        visible = self.size + self.filled
        slot = self.size + self.time[:, None]
        self.cache.select(slot, visible)
        # Slots between a short prompt's end and the longest one's are overwritten as the row gets there.
        frames_seen = self.slots[self.size : visible] <= slot
        mask = torch.cat((self.prefix.exists, frames_seen), dim=1)[:, None, None, :]
        place = (None, None) if pointers is None or spent is None else (pointers[:, None], spent[:, None])
        x = self.model.embed(self.prefix, previous[:, None], *place)
        hidden = self.model.transformer(x, self.time[:, None], mask, cache=self.cache)
        return self._logits(hidden, pointers)

    def _logits(self, hidden: Tensor, pointers: Tensor | None) -> ARLogits:
        logits = self.model.logits(hidden, self.legal, None if pointers is None else pointers[:, None])
        return ARLogits(logits.codes[:, 0], None if logits.advances is None else logits.advances[:, 0])
