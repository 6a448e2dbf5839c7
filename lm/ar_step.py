"""The AR model one step at a time, for any number of utterances at different places.

Shapes: n rows in use, L text tokens, S steps of the prompt, N frames of a step, D width.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.ar import ARLogits, ARModel, ARSteps
from valle.lm.kv_cache import KVCache, Prefills, RowSlots, StepSlots, whole_pages
from valle.lm.prefix import Prefix
from valle.lm.request import Request, RequestBatch
from valle.lm.transformer import prefix_causal_mask

BLOCK = 64
"""Attention looks at whole blocks of positions, so that rounding does not depend on how long other rows are."""
CUDA_BLOCK = 256
"""The same on CUDA, where each number of blocks is a graph of its own (`valle.lm.graphs`)."""


class ARStepper:
    """An `ARModel` with a KV cache of `rows` rows, used from 0 on.

    A row is filled alone, so what it holds does not depend on the others. `stepper` makes the single steps: the model
    itself, or a copy of it in lower precision (`valle.lm.precision`). `prefills` keeps what was read, for those that
    ask for the same again; default: until this object is gone.
    """

    def __init__(
        self, model: ARModel, rows: int, stepper: ARModel | None = None, prefills: Prefills | None = None
    ) -> None:
        self.model, self.stepper = model, stepper or model
        self.prefills = prefills or Prefills.beside(model)
        config, weight = model.config, self.stepper.code.weight
        self.device = weight.device
        # On a CPU a step attends in fp32, see `transformer.attend`.
        dtype = torch.float32 if self.device.type == "cpu" else weight.dtype
        self.cache = KVCache(config, rows, self.device, dtype)
        self.used = [0] * rows
        """Positions in use, known without asking the device; never less than the true number."""
        self.size = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.time = torch.zeros_like(self.size)
        self.context = torch.zeros(rows, 1, config.dim, device=self.device, dtype=weight.dtype)
        self.legal = torch.zeros(rows, 1, config.max_advance + 1, dtype=torch.bool, device=self.device)
        self.slots = torch.arange(0, device=self.device)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that steps read and write, besides weights."""
        cache = self.cache
        return cache.keys, cache.values, cache.lines, self.size, self.time, self.context, self.legal, self.slots

    def enter(self, row: int, request: Request) -> ARSteps:
        """Fill `row` with the prefix and the prompt of a request. Gives the steps [1, S] of the prompt.

        The last of these steps is not done yet: it is the first one for `step`.
        """
        model, config = self.model, self.model.config
        inputs = RequestBatch.of([request], config.aligned, self.device)
        prefix = model.prefix(inputs.phonemes, inputs.phoneme_lengths, inputs.time_invariant)
        # The prompt ends with a group; frames that fill none are left out at its beginning.
        odd = inputs.codes.shape[2] % config.group_size
        codes, lengths = inputs.codes[:, 0, odd:], inputs.code_lengths - odd
        steps = model.steps(inputs.phoneme_lengths, codes, lengths, inputs.durations)
        size, past = prefix.x.shape[1], steps.previous.shape[1] - 1
        self.cache.reserve(size + past)
        self._fill(row, request, prefix, steps)
        self.size[row], self.time[row], self.used[row] = size, past, size + past
        if prefix.context is not None:
            length = prefix.context.shape[1]
            if length > self.context.shape[1]:
                more = (0, 0, 0, whole_pages(length) - self.context.shape[1])
                self.context, self.legal = F.pad(self.context, more), F.pad(self.legal, more)
            self.context[row, :length] = prefix.context[0]
            self.legal[row, :length] = model.legal_advances(inputs.phonemes, inputs.phoneme_lengths)[0]
        return steps

    def _fill(self, row: int, request: Request, prefix: Prefix, steps: ARSteps) -> None:
        """Read the prefix, and the steps but the last. A reusable prompt is read first, then the text behind it."""
        model, config = self.model, self.model.config
        size, past = prefix.x.shape[1], steps.previous.shape[1] - 1
        tokens, context = len(request.phonemes), prefix.context
        if config.reusable_prompt and request.prompt_phonemes:
            tokens = request.prompt_phonemes
            if context is not None:
                ends = torch.tensor([tokens], device=self.device)
                context = model.prefix.prompt_context(request.phonemes[None].to(self.device), ends)
        pointers, frames_in_token = (
            None if s is None else s[:, :past] for s in (steps.pointers, steps.frames_in_token)
        )
        frames = model.embed(context, steps.previous[:, :past], pointers, frames_in_token)
        text, time = torch.arange(size, device=self.device), torch.arange(past, device=self.device)
        prompt = None if request.prompt_codes is None else request.prompt_codes[0]
        content = _content(request.time_invariant, prompt, request.prompt_durations, request.phonemes[:tokens])
        first = config.n_time_invariant + tokens
        x, positions = torch.cat((prefix.x[:, :first], frames), dim=1), torch.cat((text[:first], time))
        self._read(row, 0, content, x, positions, prefix_causal_mask(prefix.exists[:, :first], past))
        if first < size:
            # Text sees all text, but no frame.
            mask = F.pad(torch.zeros_like(time, dtype=torch.bool), (first, size - first), value=True)
            content = content, _content(request.phonemes[tokens:])
            self._read(row, first + past, content, prefix.x[:, first:], text[first:], mask[None, None, None])

    def _read(self, row: int, start: int, content: Hashable, x: Tensor, positions: Tensor, mask: Tensor) -> None:
        """Fill `row` from `start` on with inputs `x` [1, S, D], which are the same whenever `content` is."""
        known = self.prefills.get(content)
        if known is not None:
            self.cache.paste(row, start, known)
            return
        self.model.transformer(x, positions[None], mask, slots=RowSlots(self.cache, row, start))
        self.prefills.put(content, self.cache.copy(row, start, start + x.shape[1]))

    def make_room(self, count: int) -> int:
        """The part of a `step` of rows 0..count-1 that is not the device's; gives how many positions it sees."""
        block = CUDA_BLOCK if self.device.type == "cuda" else BLOCK
        self.used[:count] = [used + 1 for used in self.used[:count]]
        visible = -(-max(self.used[:count]) // block) * block
        self.cache.reserve(visible)
        if len(self.slots) < visible:
            self.slots = torch.arange(self.cache.capacity, device=self.device)
        return visible

    def step(self, previous: Tensor, pointers: Tensor | None, frames_in_token: Tensor | None, visible: int) -> ARLogits:
        """Logits [n, ...] of the next step of rows 0..n-1, after codes `previous` [n, N].

        visible: what `make_room` gave for this step
        pointers, frames_in_token: [n], where the last frame stands in the text; for the aligned kind
        """
        count, model = len(previous), self.stepper
        slot = self.size[:count] + self.time[:count]
        mask = (self.slots[:visible] <= slot[:, None])[:, None, None]
        place = None if pointers is None or frames_in_token is None else (pointers[:, None], frames_in_token[:, None])
        context = None if place is None else self.context[:count]
        x = model.embed(context, previous[:, None], *(place or (None, None)))
        slots = StepSlots(self.cache, slot, visible)
        hidden = model.transformer(x, self.time[:count, None], mask, slots=slots)
        self.time[:count] += 1
        logits = model.logits(hidden, None if place is None else self.legal[:count], place and place[0])
        return ARLogits(logits.codes[:, 0], None if logits.advances is None else logits.advances[:, 0])

    def move(self, origin: int, to: int) -> None:
        """Row `to` becomes a copy of row `origin`."""
        if origin != to:
            self.cache.move(origin, to, self.used[origin])
            self.used[to] = self.used[origin]
            for state in (self.size, self.time, self.context, self.legal):
                state[to] = state[origin]


def _content(*tensors: Tensor | None) -> Hashable:
    """Equal for equal tensors."""
    return tuple(None if tensor is None else tensor.numpy(force=True).tobytes() for tensor in tensors)
