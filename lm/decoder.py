"""Continuous batching: utterances enter and leave the batch between any two steps.

Shapes: n rows in use, L text tokens, F frames at most, N frames of a step, W frames that sampling looks back at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.ar import ARLogits, ARModel
from valle.lm.ar_step import ARStepper
from valle.lm.graphs import StepGraphs, cuda_recorders
from valle.lm.kv_cache import Prefills, whole_pages
from valle.lm.request import Generated, Request, uniform_noise
from valle.lm.sampling import Sampling, choose, draw, probabilities

CHECK_EVERY = 16
"""Steps between two looks at who has finished: on a GPU each look waits for the device."""


@dataclass(eq=False)
class Row:
    """One request in a `Decoder`; `said` is None until it is finished."""

    request: Request
    index: int
    frames: int = 0
    """Decoded so far; about as many have been said."""
    said: Generated | None = None


class Decoder:
    """Speaks any number of requests at once, `rows` at a time, each as it would be spoken alone.

        row = decoder.enter(request)        # while decoder.free
        finished = decoder.step()           # one frame, or group of them, for every row
        decoder.so_far(row).codes           # for streaming
        decoder.leave(row)                  # to cancel; finished rows have left already

    stepper: a copy of the model in lower precision that makes the single steps, see `valle.lm.precision`
    prefills: what was read before, shared with other decoders of the same model; default: its own
    On CUDA the steps are replayed from graphs (`valle.lm.graphs`).
    The models must be in eval mode. Not safe for use by several threads at once.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: ARModel,
        sampling: Sampling,
        rows: int = 8,
        stepper: ARModel | None = None,
        prefills: Prefills | None = None,
    ) -> None:
        if model.training:
            raise ValueError("the model is in training mode; call model.eval() first")
        self.model, self.sampling = model, sampling
        self.ar = ARStepper(model, rows, stepper, prefills)
        self.device = self.ar.device
        self.rows: list[Row] = []
        self.capacity = rows
        self.steps = 0
        self.graphs = StepGraphs(cuda_recorders(self.device))
        self._state = _State.empty(rows, model.config.group_size, max(sampling.ras_window, 1), self.device)

    @property
    def free(self) -> int:
        """How many more requests may enter now."""
        return self.capacity - len(self.rows)

    @torch.inference_mode()
    def enter(self, request: Request) -> Row:
        """Start speaking a request; its prompt is read at once. Raises `ValueError` when no row is free."""
        if not self.free:
            raise ValueError(f"all {self.capacity} rows are in use")
        row, aligned = Row(request, len(self.rows)), self.model.config.aligned
        steps = self.ar.enter(row.index, request)
        sampling, state, i = self.sampling, self._state, row.index
        new_tokens = len(request.phonemes) - request.prompt_phonemes
        most = min(sampling.max_frames, max(1, -int(-new_tokens * sampling.max_frames_per_token // 1)))
        stay = None
        if aligned:
            boundary = self.model.is_boundary[request.phonemes.to(self.device)]
            longest_phone, longest_pause = sampling.longest(request.live)
            stay = torch.where(boundary, longest_pause, longest_phone)
            most = min(most, int(stay[request.prompt_phonemes :].sum()))
        state.reserve(len(request.phonemes), most)
        state.previous[i] = steps.previous[0, -1]
        state.least[i], state.most[i] = int(new_tokens * sampling.min_frames_per_token), most
        # An aligned model's first step records nothing: it only decides on which token the speech starts.
        state.length[i] = -1 if aligned else 0
        state.running[i], state.ended[i] = True, False
        state.first_token[i], state.last_token[i] = request.prompt_phonemes, len(request.phonemes) - 1
        noise = uniform_noise([request], torch.tensor([most + 1]), 3, self.device)[0]
        state.noise[i, : len(noise)] = noise
        window = state.window
        state.codes[i, :window] = -1
        if request.prompt_codes is not None:
            prompt = request.prompt_codes[0, -window:]
            state.codes[i, window - len(prompt) : window] = prompt.to(self.device)
        if stay is not None and steps.pointers is not None and steps.frames_in_token is not None:
            state.stay_limit[i, : len(stay)] = stay
            state.pointers[i], state.frames_in_token[i] = steps.pointers[0, -1], steps.frames_in_token[0, -1]
        self.rows.append(row)
        return row

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Decode one frame, or group, of every row; gives the rows that were found finished, which have left."""
        count = len(self.rows)
        if not count:
            return []
        self.steps += 1
        for row in self.rows:
            row.frames += self.model.config.group_size
        visible = self.ar.make_room(count)
        tensors = (*self.ar.tensors, *self._state.tensors)
        self.graphs.run((count, visible), tensors, partial(self._advance, count, visible))
        if self.device.type != "cpu" and self.steps % CHECK_EVERY:
            return []
        running = self._state.running[:count].tolist()
        finished = [row for row, goes_on in zip(self.rows, running, strict=True) if not goes_on]
        for row in finished:
            row.said = self.so_far(row)
            self.leave(row)
        return finished

    @torch.inference_mode()
    def so_far(self, row: Row) -> Generated:
        """What was said of a request until now; its stop reason is "" while it goes on. Waits for the device."""
        if row.said is not None:
            return row.said
        state, i = self._state, row.index
        frames = max(0, int(state.length[i]))
        codes = state.codes[i, state.window :][:frames].cpu().clone()
        complete = "end_of_text" if self.model.config.aligned else "eos"
        reason = "" if state.running[i] else complete if state.ended[i] else "max_length"
        if not self.model.config.aligned:
            return Generated(codes, None, reason, frames)
        durations = state.visited[i, :frames].cpu().bincount(minlength=len(row.request.phonemes))
        return Generated(codes, durations[row.request.prompt_phonemes :], reason, frames)

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """Take a request out; the last row takes its place."""
        last = self.rows.pop()
        if last is not row:
            self.rows[row.index] = last
            self.ar.move(last.index, row.index)
            self._state.move(last.index, row.index)
            last.index = row.index

    def _advance(self, count: int, visible: int) -> None:
        """The device's part of a step: it changes tensors in place and reads nothing back."""
        state = self._state.first(count)
        if self.model.config.aligned:
            pointers = state.pointers.minimum(state.last_token)
            self._choose_aligned(state, self.ar.step(state.previous, pointers, state.frames_in_token, visible))
        else:
            self._choose_plain(state, self.ar.step(state.previous, None, None, visible))

    def _choose_plain(self, state: _State, logits: ARLogits) -> None:
        eos = self.model.eos
        for place, codes in enumerate(logits.codes.unbind(1)):
            codes[:, eos].masked_fill_(state.length < state.least, float("-inf"))
            noise = state.noise_at(state.length)
            code = choose(codes, state.recent(), noise[:, :2], self.sampling)
            ended = code == eos
            state.ended |= state.running & ended
            code = code.where(~ended, 0)
            state.previous[:, place] = code
            state.record(code)
            state.length += state.running & ~ended
            state.running &= ~ended & (state.length < state.most)

    def _choose_aligned(self, state: _State, logits: ARLogits) -> None:
        started = state.length >= 0
        noise, recent = state.noise_at(state.length + 1), state.recent()
        code = choose(logits.codes[:, 0], recent, noise[:, :2], self.sampling)
        before = recent[:, -1].where(recent[:, -1] >= 0, self.model.bos)
        state.previous[:, 0] = code.where(started, before)
        state.record(code)
        pointers, frames_in_token = self._move(state, logits, noise[:, 2])
        # A finished row keeps decoding its last frame, unrecorded, until somebody looks.
        state.pointers.copy_(pointers.where(state.running, state.pointers))
        state.frames_in_token.copy_(frames_in_token.where(state.running, state.frames_in_token))
        state.length += state.running
        state.ended.copy_(state.pointers > state.last_token)
        state.running &= ~state.ended & (state.length < state.most)

    def _move(self, state: _State, logits: ARLogits, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Pointers and frames in their token of the next frame."""
        advances, sampling = logits.advances, self.sampling
        assert advances is not None
        here = state.pointers.clamp(min=0).minimum(state.last_token)[:, None]
        full = state.frames_in_token + 1 >= state.stay_limit.gather(1, here)[:, 0]
        # In front of the new text (at -1, or at the prompt's end) the only way is into it.
        leave = (full | (state.pointers < state.first_token))[:, None]
        advances = torch.cat((advances[:, :1].masked_fill(leave, float("-inf")), advances[:, 1:]), dim=1)
        if sampling.greedy:
            advance = advances.argmax(dim=-1)
        else:
            advance = draw(probabilities(advances, sampling.duration_temperature), uniform)
        target = (state.pointers + advance).maximum(state.first_token)
        return target, torch.where(advance == 0, state.frames_in_token + 1, 0)


@dataclass
class _State:
    """What the choices of all rows depend on; the first axis is the row.

    previous [n, N]: input of the next step; length [n]: frames said; least, most [n]: bounds of the length
    running, ended [n]: bool; first_token, last_token [n]: the text to speak; pointers, frames_in_token [n]: place in it
    codes [n, W + F]: the end of the prompt (-1 where there is none), then what was said
    visited [n, F]: the token of each frame; stay_limit [n, L]: frames that a token may last; noise [n, F + 1, 3]
    """

    window: int
    previous: Tensor
    length: Tensor
    least: Tensor
    most: Tensor
    running: Tensor
    ended: Tensor
    first_token: Tensor
    last_token: Tensor
    pointers: Tensor
    frames_in_token: Tensor
    codes: Tensor
    visited: Tensor
    stay_limit: Tensor
    noise: Tensor

    @classmethod
    def empty(cls, rows: int, group: int, window: int, device: torch.device) -> _State:
        def long(*shape: int) -> Tensor:
            return torch.zeros(rows, *shape, dtype=torch.long, device=device)

        noise = torch.zeros(rows, 0, 3, device=device)
        return cls(
            window=window,
            previous=long(group),
            length=long(),
            least=long(),
            most=long(),
            running=long().bool(),
            ended=long().bool(),
            first_token=long(),
            last_token=long(),
            pointers=long(),
            frames_in_token=long(),
            codes=long(window),
            visited=long(0),
            stay_limit=long(0),
            noise=noise,
        )

    def reserve(self, tokens: int, frames: int) -> None:
        """Make room for requests of so many text tokens and frames."""
        # Two more than the frames: a finished row goes on writing and drawing just behind its end.
        tokens, frames = whole_pages(tokens) - self.stay_limit.shape[1], whole_pages(frames + 2) - self.visited.shape[1]
        if tokens > 0:
            self.stay_limit = F.pad(self.stay_limit, (0, tokens))
        if frames > 0:
            self.codes = F.pad(self.codes, (0, frames))
            self.visited = F.pad(self.visited, (0, frames))
            self.noise = F.pad(self.noise, (0, 0, 0, frames))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in fields(self)[1:])

    def first(self, count: int) -> _State:
        """Views of the first `count` rows."""
        return _State(self.window, *(tensor[:count] for tensor in self.tensors))

    def move(self, origin: int, to: int) -> None:
        for tensor in self.tensors:
            tensor[to] = tensor[origin]

    def recent(self) -> Tensor:
        """The last W codes [n, W]; -1 where there were none."""
        back = torch.arange(self.window, device=self.codes.device)
        return self.codes.gather(1, self.length.clamp(min=0)[:, None] + back)

    def noise_at(self, index: Tensor) -> Tensor:
        """Uniform numbers [n, 3] of step `index` [n]."""
        return self.noise[torch.arange(len(index), device=index.device), index]

    def record(self, code: Tensor) -> None:
        """Write `code` [n] and the pointers where the next frame belongs."""
        place = self.length.clamp(min=0)[:, None]
        self.codes.scatter_(1, place + self.window, code[:, None])
        self.visited.scatter_(1, place, self.pointers[:, None])


Progress = Callable[[int], None]
"""Called after each step with the number of steps so far."""


def generate(
    model: ARModel,
    requests: Sequence[Request],
    sampling: Sampling,
    progress: Progress | None = None,
    stepper: ARModel | None = None,
) -> list[Generated]:
    """Decode the first quantizer of each request. The model must be in eval mode; `stepper`: see `Decoder`."""
    decoder = Decoder(model, sampling, len(requests), stepper)
    rows = [decoder.enter(request) for request in requests]
    while decoder.rows:
        decoder.step()
        if progress is not None:
            progress(decoder.steps)
    return [row.said for row in rows if row.said is not None]
