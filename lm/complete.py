"""The other quantizers of what the AR model said: by the stages of a NAR model, or by a flow.

Shapes: B requests, n_q quantizers, T frames (those of the prompt first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.lm.flow import FlowModel, flow_codes
from valle.lm.nar import NARModel
from valle.lm.request import Generated, Request, RequestBatch, uniform_noise
from valle.lm.sampling import Sampling, draw, probabilities

NOISE_STREAM = 1
"""Of a request's random numbers; the AR model has another."""


def complete(
    model: NARModel | FlowModel,
    requests: Sequence[Request],
    spoken: Sequence[Generated],
    sampling: Sampling,
    known: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """All quantizers [n_q, T] of what the AR model has `spoken`, without prompts. The model must be in eval mode.

    known: [n_q, t] for each request, the first frames of it as they were completed before: they stay as they are
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    is_flow = isinstance(model, FlowModel)
    prompts = [request.voice_codes if is_flow else request.prompt_codes for request in requests]
    frames = _Frames.of(prompts, spoken, known, model.config.n_q)
    device = next(model.parameters()).device
    with torch.inference_mode():
        if isinstance(model, FlowModel):
            codes = _by_flow(model, requests, frames.to(device), sampling)
        else:
            codes = _by_stages(model, requests, spoken, frames.to(device), sampling)
    starts = [0 if prompt is None else prompt.shape[1] for prompt in prompts]
    return [row[:, start:end].cpu() for row, start, end in zip(codes, starts, frames.lengths.tolist(), strict=True)]


@dataclass
class _Frames:
    """codes: [B, n_q, T], of which the first `known` [B] frames are complete; lengths: [B]."""

    codes: Tensor
    lengths: Tensor
    known: Tensor

    @classmethod
    def of(
        cls,
        prompts: Sequence[Tensor | None],
        spoken: Sequence[Generated],
        known: Sequence[Tensor] | None,
        n_q: int,
    ) -> _Frames:
        rows, done = [], []
        for index, (prompt, said) in enumerate(zip(prompts, spoken, strict=True)):
            start = 0 if prompt is None else prompt.shape[1]
            row = torch.zeros(start + len(said.codes), n_q, dtype=torch.long)
            if prompt is not None:
                row[:start] = prompt.T
            row[start:, 0] = said.codes
            done.append(start)
            if known is not None:
                done[-1] += known[index].shape[1]
                row[start : done[-1]] = known[index].T
            rows.append(row)
        codes = pad_sequence(rows, batch_first=True).transpose(1, 2)
        return cls(codes, torch.tensor([len(row) for row in rows]), torch.tensor(done))

    def to(self, device: torch.device) -> _Frames:
        return _Frames(self.codes.to(device), self.lengths.to(device), self.known.to(device))


def _by_flow(model: FlowModel, requests: Sequence[Request], frames: _Frames, sampling: Sampling) -> Tensor:
    channels, device = model.points.shape[0] * model.points.shape[2], frames.codes.device
    uniform = uniform_noise(requests, frames.lengths, channels, device, NOISE_STREAM)
    noise = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
    voices = RequestBatch.of(requests, aligned=False, device=device).time_invariant
    settings = noise, sampling.flow_steps, sampling.flow_guidance
    return flow_codes(model, frames.codes, frames.lengths, frames.known, voices, *settings)


def _by_stages(
    model: NARModel, requests: Sequence[Request], spoken: Sequence[Generated], frames: _Frames, sampling: Sampling
) -> Tensor:
    codes, device = frames.codes, frames.codes.device
    inputs = RequestBatch.of(requests, model.config.aligned, device)
    durations = _durations(requests, spoken).to(device) if model.config.aligned else None
    noise = uniform_noise(requests, frames.lengths, model.config.n_q, device, NOISE_STREAM)
    is_known = torch.arange(codes.shape[2], device=device) < frames.known[:, None]
    for number in range(1, model.config.n_q):
        logits = model(
            inputs.phonemes,
            inputs.phoneme_lengths,
            codes,
            frames.lengths,
            torch.full_like(frames.lengths, number),
            frames.known,
            inputs.time_invariant,
            durations,
        )
        if sampling.nar_temperature:
            probs = probabilities(logits.flatten(0, 1), sampling.nar_temperature)
            choice = draw(probs, noise[:, :, number].flatten()).view(logits.shape[:2])
        else:
            choice = logits.argmax(dim=-1)
        codes[:, number] = torch.where(is_known, codes[:, number], choice)
    return codes


def _durations(requests: Sequence[Request], spoken: Sequence[Generated]) -> Tensor:
    """Frames [B, L] of each text token, those of the prompt first."""
    rows = []
    for request, said in zip(requests, spoken, strict=True):
        if said.durations is None:
            raise ValueError("an aligned NAR model needs durations, which a plain AR model does not give")
        before = [] if request.prompt_durations is None else [request.prompt_durations]
        rows.append(torch.cat((*before, said.durations)))
    return pad_sequence(rows, batch_first=True)
