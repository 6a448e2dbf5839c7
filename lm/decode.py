"""Speaking: the loop of the AR model with a KV cache, and the stages of the NAR model.

Shapes: B requests, L text tokens, G time-invariant codes, P = G + L, T' prompt frames, T new frames, K codes.

A batch gives what each request gives alone: rows never see each other or their padding, and each draws from its own
seed. Inputs are embedded by the functions that training uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.lm.ar import ARLogits, ARModel
from valle.lm.cache import KVCache
from valle.lm.nar import NARModel
from valle.lm.sampling import Sampling, choose, draw, probabilities
from valle.lm.transformer import prefix_causal_mask

Progress = Callable[[int], None]
"""Called after each step with the number of frames decoded so far."""

CHECK_EVERY = 16
"""Steps between two looks at whether all rows are finished: on a GPU each look waits for the device."""


@dataclass
class Request:
    """One utterance to speak.

    phonemes:         LongTensor [L], the text of the prompt (if its frames are given), then the text to speak
    time_invariant:   LongTensor [G] of the voice, or None
    prompt_codes:     LongTensor [n_q, T'], or None for no acoustic prompt
    prompt_phonemes:  how many of the text tokens the prompt speaks
    prompt_durations: LongTensor [prompt_phonemes], frames of each; for aligned models with a prompt
    """

    phonemes: Tensor
    time_invariant: Tensor | None = None
    prompt_codes: Tensor | None = None
    prompt_phonemes: int = 0
    prompt_durations: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_phonemes < len(self.phonemes):
            raise ValueError(f"prompt_phonemes is {self.prompt_phonemes}, but the text has {len(self.phonemes)} tokens")
        if (self.prompt_codes is None) != (self.prompt_phonemes == 0):
            raise ValueError("prompt_codes and prompt_phonemes go together: give both or neither")
        if self.prompt_durations is not None:
            if self.prompt_durations.shape != (self.prompt_phonemes,):
                raise ValueError(f"prompt_durations must be [{self.prompt_phonemes}]")
            if int(self.prompt_durations.sum()) != self.prompt_frames:
                raise ValueError(f"prompt_durations must add up to the {self.prompt_frames} frames of the prompt")

    @property
    def prompt_frames(self) -> int:
        return 0 if self.prompt_codes is None else self.prompt_codes.shape[1]


@dataclass
class Generated:
    """What the AR model said.

    codes:       LongTensor [T] of the first quantizer, without the prompt
    durations:   LongTensor [L - prompt_phonemes], frames of each new text token; None from a plain model
    stop_reason: "eos" (plain) or "end_of_text" (aligned): the speech is complete; "max_length": it was cut off
    steps:       frames decoded
    """

    codes: Tensor
    durations: Tensor | None
    stop_reason: str
    steps: int


@dataclass
class _Inputs:
    """A batch of requests, padded: phonemes [B, L], codes [B, n_q, T'], durations [B, L], time_invariant [B, G]."""

    phonemes: Tensor
    phoneme_lengths: Tensor
    prompt_phonemes: Tensor
    codes: Tensor
    code_lengths: Tensor
    durations: Tensor | None
    time_invariant: Tensor | None

    @classmethod
    def of(cls, requests: Sequence[Request], aligned: bool, device: torch.device) -> _Inputs:
        voices = [r.time_invariant for r in requests if r.time_invariant is not None]
        if 0 < len(voices) < len(requests):
            raise ValueError("a batch has time-invariant codes for all of its requests or for none")
        if aligned and any(r.prompt_phonemes and r.prompt_durations is None for r in requests):
            raise ValueError("an aligned model needs the durations of the prompt's text tokens")
        phonemes = pad_sequence([r.phonemes for r in requests], batch_first=True)
        durations = None
        if aligned:
            durations = torch.zeros_like(phonemes)
            for row, request in zip(durations, requests, strict=True):
                if request.prompt_durations is not None:
                    row[: request.prompt_phonemes] = request.prompt_durations
        prompts = [torch.zeros(0, 1, dtype=torch.long) if r.prompt_codes is None else r.prompt_codes.T for r in requests]
        quantizers = max(p.shape[1] for p in prompts)
        prompts = [p if len(p) else p.new_zeros(0, quantizers) for p in prompts]
        return cls(
            phonemes=phonemes.to(device),
            phoneme_lengths=torch.tensor([len(r.phonemes) for r in requests], device=device),
            prompt_phonemes=torch.tensor([r.prompt_phonemes for r in requests], device=device),
            codes=pad_sequence(prompts, batch_first=True).transpose(1, 2).to(device),
            code_lengths=torch.tensor([r.prompt_frames for r in requests], device=device),
            durations=None if durations is None else durations.to(device),
            time_invariant=torch.stack(voices).to(device) if voices else None,
        )


class CachedAR:
    """An `ARModel` in the middle of a batch: gives the logits of one step after another from its KV cache."""

    def __init__(self, model: ARModel, inputs: _Inputs, max_new: int) -> None:
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


@torch.inference_mode()
def generate(
    model: ARModel, requests: Sequence[Request], sampling: Sampling, progress: Progress | None = None
) -> list[Generated]:
    """Decode the first quantizer of each request. The model must be in eval mode."""
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    device = model.code.weight.device
    inputs = _Inputs.of(requests, model.config.aligned, device)
    return (_generate_aligned if model.config.aligned else _generate_plain)(model, requests, inputs, sampling, progress)


def _generate_plain(
    model: ARModel, requests: Sequence[Request], inputs: _Inputs, sampling: Sampling, progress: Progress | None
) -> list[Generated]:
    new_tokens = inputs.phoneme_lengths - inputs.prompt_phonemes
    least = (new_tokens * sampling.min_frames_per_token).long()
    most = (new_tokens * sampling.max_frames_per_token).ceil().long().clamp(1, sampling.max_frames)
    limit = int(most.max())
    noise = _noise(requests, most, 2, inputs.phonemes.device)
    decoder = CachedAR(model, inputs, limit)
    history = _History(inputs.codes[:, 0], inputs.code_lengths, sampling.ras_window, limit)
    running = torch.ones_like(most, dtype=torch.bool)
    length, ended = torch.zeros_like(most), torch.zeros_like(running)
    logits = decoder.first
    for step in range(limit):
        logits.codes[:, model.eos].masked_fill_(step < least, float("-inf"))
        code = choose(logits.codes, history.recent(step), noise[:, step], sampling)
        running = running & (step < most)
        ended |= running & (code == model.eos)
        running = running & (code != model.eos)
        length += running
        code = code.where(running, 0)
        history.add(step, code)
        if progress is not None:
            progress(step + 1)
        if _all_done(running, step) or step + 1 == limit:
            break
        logits = decoder.step(code, None, None)
    reasons = ["eos" if e else "max_length" for e in ended.tolist()]
    return [
        Generated(history.new[row, :n].cpu(), None, reason, n)
        for row, (n, reason) in enumerate(zip(length.tolist(), reasons, strict=True))
    ]


def _generate_aligned(
    model: ARModel, requests: Sequence[Request], inputs: _Inputs, sampling: Sampling, progress: Progress | None
) -> list[Generated]:
    boundary = model.is_boundary[inputs.phonemes]
    stay_limit = torch.where(boundary, sampling.max_boundary_frames, sampling.max_phone_frames)
    tokens = torch.arange(boundary.shape[1], device=boundary.device)
    new = (tokens >= inputs.prompt_phonemes[:, None]) & (tokens < inputs.phoneme_lengths[:, None])
    most = (stay_limit * new).sum(dim=1).clamp(max=sampling.max_frames)
    limit = int(most.max())
    noise = _noise(requests, most + 1, 3, inputs.phonemes.device)
    decoder = CachedAR(model, inputs, limit)
    history = _History(inputs.codes[:, 0], inputs.code_lengths, sampling.ras_window, limit)
    assert decoder.pointers is not None
    pointers, spent = decoder.pointers, torch.zeros_like(most)
    visited = torch.zeros(len(requests), limit, dtype=torch.long, device=boundary.device)
    last_token = inputs.phoneme_lengths - 1

    def move(logits: ARLogits, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Pointers and frames spent of the next frame."""
        advances = logits.advances
        assert advances is not None
        here = pointers.clamp(min=0).minimum(last_token)[:, None]
        full = spent + 1 >= stay_limit.gather(1, here)[:, 0]
        # In front of the new text (at -1, or at the prompt's end) the only way is into it.
        leave = (full | (pointers < inputs.prompt_phonemes))[:, None]
        advances = torch.cat((advances[:, :1].masked_fill(leave, float("-inf")), advances[:, 1:]), dim=1)
        if sampling.greedy:
            advance = advances.argmax(dim=-1)
        else:
            advance = draw(probabilities(advances, sampling.duration_temperature), uniform)
        target = (pointers + advance).maximum(inputs.prompt_phonemes)
        return target, torch.where(advance == 0, spent + 1, 0)

    previous = history.recent(0)[:, -1]
    previous = previous.where(previous >= 0, model.bos)
    pointers, spent = move(decoder.first, noise[:, 0, 2])
    running = torch.ones_like(most, dtype=torch.bool)
    length = torch.zeros_like(most)
    for step in range(limit):
        # A finished row keeps decoding its last token, unrecorded, until the batch is done.
        logits = decoder.step(previous, pointers.minimum(last_token), spent)
        previous = choose(logits.codes, history.recent(step), noise[:, step + 1], sampling)
        history.add(step, previous)
        visited[:, step] = pointers
        length += running
        target, spent_next = move(logits, noise[:, step + 1, 2])
        pointers, spent = pointers.where(~running, target), spent.where(~running, spent_next)
        running = running & (pointers <= last_token) & (step + 1 < most)
        if progress is not None:
            progress(step + 1)
        if _all_done(running, step):
            break
    reasons = ["end_of_text" if e else "max_length" for e in (pointers > last_token).tolist()]
    results = []
    for row, (n, reason, request) in enumerate(zip(length.tolist(), reasons, requests, strict=True)):
        durations = visited[row, :n].cpu().bincount(minlength=len(request.phonemes))[request.prompt_phonemes :]
        results.append(Generated(history.new[row, :n].cpu(), durations, reason, n))
    return results


@torch.inference_mode()
def complete(
    model: NARModel, requests: Sequence[Request], spoken: Sequence[Generated], sampling: Sampling
) -> list[Tensor]:
    """All quantizers [n_q, T] of what the AR model has `spoken`, without the prompts. The model must be in eval mode."""
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    device = model.codes.device
    inputs = _Inputs.of(requests, model.config.aligned, device)
    codes, durations = [], []
    for request, said in zip(requests, spoken, strict=True):
        whole = torch.zeros(request.prompt_frames + len(said.codes), model.config.n_q, dtype=torch.long)
        if request.prompt_codes is not None:
            whole[: request.prompt_frames] = request.prompt_codes.T
        whole[request.prompt_frames :, 0] = said.codes
        codes.append(whole)
        if model.config.aligned:
            if said.durations is None:
                raise ValueError("an aligned NAR model needs durations, which a plain AR model does not give")
            known = [said.durations] if request.prompt_durations is None else [request.prompt_durations, said.durations]
            durations.append(torch.cat(known))
    batch = pad_sequence(codes, batch_first=True).transpose(1, 2).to(device)
    lengths = torch.tensor([len(c) for c in codes], device=device)
    noise = _noise(requests, lengths, model.config.n_q, device, stream=1)
    for number in range(1, model.config.n_q):
        logits = model(
            inputs.phonemes,
            inputs.phoneme_lengths,
            batch,
            lengths,
            torch.full_like(lengths, number),
            inputs.code_lengths,
            inputs.time_invariant,
            pad_sequence(durations, batch_first=True).to(device) if durations else None,
        )
        if sampling.nar_temperature:
            probs = probabilities(logits.flatten(0, 1), sampling.nar_temperature)
            choice = draw(probs, noise[:, :, number].flatten()).view(logits.shape[:2])
        else:
            choice = logits.argmax(dim=-1)
        in_prompt = torch.arange(batch.shape[2], device=device) < inputs.code_lengths[:, None]
        batch[:, number] = torch.where(in_prompt, batch[:, number], choice)
    return [
        row[:, request.prompt_frames : len(whole)].cpu()
        for row, request, whole in zip(batch, requests, codes, strict=True)
    ]


class _History:
    """The codes of a batch so far: the end of each prompt, which sampling looks back at, then the new ones."""

    def __init__(self, prompt: Tensor, lengths: Tensor, window: int, limit: int) -> None:
        self.window = max(window, 1)
        back = lengths[:, None] - self.window + torch.arange(self.window, device=prompt.device)
        padded = torch.cat((prompt, prompt.new_zeros(len(prompt), 1)), dim=1)
        tail = padded.gather(1, back.clamp(min=0)).masked_fill(back < 0, -1)
        self.codes = torch.cat((tail, prompt.new_zeros(len(prompt), limit)), dim=1)

    @property
    def new(self) -> Tensor:
        return self.codes[:, self.window :]

    def recent(self, step: int) -> Tensor:
        """The last `window` codes [B, window] before new frame `step`; -1 where there were none."""
        return self.codes[:, step : step + self.window]

    def add(self, step: int, code: Tensor) -> None:
        self.codes[:, self.window + step] = code


def _noise(
    requests: Sequence[Request], rows: Tensor, columns: int, device: torch.device, stream: int = 0
) -> Tensor:
    """Uniform numbers [B, max(rows), columns], each request's from its own seed; drawn on the CPU for any device."""
    drawn = []
    for request, count in zip(requests, rows.tolist(), strict=True):
        generator = torch.Generator().manual_seed(2 * request.seed + stream)
        drawn.append(torch.rand(count, columns, generator=generator))
    return pad_sequence(drawn, batch_first=True).to(device)


def _all_done(running: Tensor, step: int) -> bool:
    due = running.device.type == "cpu" or step % CHECK_EVERY == CHECK_EVERY - 1
    return due and not bool(running.any())
