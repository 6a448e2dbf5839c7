"""Speaking: the loop of the AR model.

Shapes: B requests, L text tokens, T' prompt frames, T new frames, K codes.

A batch gives what each request gives alone: rows never see each other or their padding, and each draws from its own
seed. Inputs are embedded by the functions that training uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from valle.lm.ar import ARLogits, ARModel
from valle.lm.cached import CachedAR
from valle.lm.request import Generated, Request, RequestBatch, uniform_noise
from valle.lm.sampling import Sampling, choose, draw, probabilities

Progress = Callable[[int], None]
"""Called after each step with the number of frames decoded so far."""

CHECK_EVERY = 16
"""Steps between two looks at whether all rows are finished: on a GPU each look waits for the device."""


@torch.inference_mode()
def generate(
    model: ARModel, requests: Sequence[Request], sampling: Sampling, progress: Progress | None = None
) -> list[Generated]:
    """Decode the first quantizer of each request. The model must be in eval mode."""
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    device = model.code.weight.device
    inputs = RequestBatch.of(requests, model.config.aligned, device)
    return (_generate_aligned if model.config.aligned else _generate_plain)(model, requests, inputs, sampling, progress)


def _generate_plain(
    model: ARModel, requests: Sequence[Request], inputs: RequestBatch, sampling: Sampling, progress: Progress | None
) -> list[Generated]:
    new_tokens = inputs.phoneme_lengths - inputs.prompt_phonemes
    least = (new_tokens * sampling.min_frames_per_token).long()
    most = (new_tokens * sampling.max_frames_per_token).ceil().long().clamp(1, sampling.max_frames)
    limit = int(most.max())
    noise = uniform_noise(requests, most, 2, inputs.phonemes.device)
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
    model: ARModel, requests: Sequence[Request], inputs: RequestBatch, sampling: Sampling, progress: Progress | None
) -> list[Generated]:
    boundary = model.is_boundary[inputs.phonemes]
    stay_limit = torch.where(boundary, sampling.max_boundary_frames, sampling.max_phone_frames)
    tokens = torch.arange(boundary.shape[1], device=boundary.device)
    new = (tokens >= inputs.prompt_phonemes[:, None]) & (tokens < inputs.phoneme_lengths[:, None])
    most = (stay_limit * new).sum(dim=1).clamp(max=sampling.max_frames)
    limit = int(most.max())
    noise = uniform_noise(requests, most + 1, 3, inputs.phonemes.device)
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


def _all_done(running: Tensor, step: int) -> bool:
    due = running.device.type == "cpu" or step % CHECK_EVERY == CHECK_EVERY - 1
    return due and not bool(running.any())
