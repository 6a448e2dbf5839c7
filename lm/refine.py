"""The other quantizers of what the AR model said: by the stages of a NAR model, or by a flow.

Shapes: B requests, n_q quantizers, T new frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from valle.lm.flow import UNKNOWN, FlowModel, flow_codes
from valle.lm.nar import NARModel
from valle.lm.request import Generated, Request, RequestBatch, uniform_noise
from valle.lm.sampling import Sampling, draw, probabilities

NOISE_STREAM = 1
"""Of a request's random numbers; the AR model has another."""
STREAM_CONTEXT = 150
"""Known frames that a flow looks at where a sentence goes on: each part of a stream costs as much as they do."""
STREAM_PAST = 100
"""So many of them, at most, are of the sentence itself, the others of the voice."""


def refine(
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
    if known is None:
        known = [torch.zeros(model.config.n_q, 0, dtype=torch.long) for _ in requests]
    if isinstance(model, FlowModel):
        return [_by_flow(model, *one, sampling) for one in zip(requests, spoken, known, strict=True)]
    return _by_stages(model, requests, spoken, sampling, known)


@torch.inference_mode()
def _by_flow(model: FlowModel, request: Request, said: Generated, known: Tensor, sampling: Sampling) -> Tensor:
    done, new = known.shape[1], len(said.codes) - known.shape[1]
    if not new:
        return known
    past = known[:, max(0, done - STREAM_PAST) :]
    voice = known[:, :0] if request.voice_codes is None else request.voice_codes
    voice = voice[:, : STREAM_CONTEXT - past.shape[1]] if done else voice
    first = F.pad(said.codes[None, done:], (0, 0, 0, model.config.n_q - 1))
    codes = torch.cat((voice, past, first), dim=1)
    device, lengths = model.points.device, torch.tensor([len(said.codes)])
    # The noise of a frame is the same whenever its turn comes.
    uniform = uniform_noise([request], lengths, model.points.shape[2], device, NOISE_STREAM)
    noise = sampling.flow_temperature * torch.special.ndtri(uniform[0, done:].clamp(1e-6, 1 - 1e-6))
    ti = None if request.time_invariant is None else request.time_invariant.to(device)
    settings = noise, sampling.flow_steps, sampling.flow_guidance
    text: list[Tensor] = []
    if model.config.aligned:
        text = [t.to(device) for t in _read_by_flow(request, said, voice.shape[1], done - past.shape[1])]
    filled = flow_codes(model, codes.to(device), codes.shape[1] - new, ti, *settings, *text)
    return torch.cat((known, filled[:, codes.shape[1] - new :].cpu()), dim=1)


def _read_by_flow(request: Request, said: Generated, heard: int, since: int) -> tuple[Tensor, Tensor]:
    """Phonemes and durations [L] of `heard` frames of the voice, and of what was `said` from frame `since` on."""
    if said.durations is None:
        raise ValueError("an aligned flow needs durations, which a plain AR model does not give")
    phonemes, durations = request.phonemes[request.prompt_phonemes :], _from(said.durations, since)
    if not heard:
        return phonemes, durations
    if request.prompt_durations is None:  # nobody knows what the voice says
        before, lasts = torch.tensor([UNKNOWN]), torch.tensor([heard])
    else:
        before = request.phonemes[: request.prompt_phonemes]
        lasts = request.prompt_durations.cumsum(0).clamp(max=heard).diff(prepend=torch.zeros(1).long())
    return torch.cat((before, phonemes)), torch.cat((lasts, durations))


def _from(durations: Tensor, start: int) -> Tensor:
    """What is left of `durations` [L] from frame `start` on."""
    return (durations.cumsum(0) - start).clamp(min=0).diff(prepend=torch.zeros(1, dtype=torch.long))


@torch.inference_mode()
def _by_stages(
    model: NARModel,
    requests: Sequence[Request],
    spoken: Sequence[Generated],
    sampling: Sampling,
    known: Sequence[Tensor],
) -> list[Tensor]:
    device = model.codes.device
    inputs = RequestBatch.of(requests, model.config.aligned, device)
    codes, durations, done = [], [], []
    for request, said, before in zip(requests, spoken, known, strict=True):
        whole = torch.zeros(request.prompt_frames + len(said.codes), model.config.n_q, dtype=torch.long)
        if request.prompt_codes is not None:
            whole[: request.prompt_frames] = request.prompt_codes.T
        whole[request.prompt_frames :, 0] = said.codes
        done.append(request.prompt_frames + before.shape[1])
        whole[request.prompt_frames : done[-1]] = before.T
        codes.append(whole)
        if model.config.aligned:
            if said.durations is None:
                raise ValueError("an aligned NAR model needs durations, which a plain AR model does not give")
            prompt = [] if request.prompt_durations is None else [request.prompt_durations]
            durations.append(torch.cat((*prompt, said.durations)))
    batch = pad_sequence(codes, batch_first=True).transpose(1, 2).to(device)
    lengths = torch.tensor([len(c) for c in codes], device=device)
    known_lengths = torch.tensor(done, device=device)
    noise = uniform_noise(requests, lengths, model.config.n_q, device, NOISE_STREAM)
    for number in range(1, model.config.n_q):
        logits = model(
            inputs.phonemes,
            inputs.phoneme_lengths,
            batch,
            lengths,
            torch.full_like(lengths, number),
            known_lengths,
            inputs.time_invariant,
            pad_sequence(durations, batch_first=True).to(device) if durations else None,
        )
        if sampling.nar_temperature:
            probs = probabilities(logits.flatten(0, 1), sampling.nar_temperature)
            choice = draw(probs, noise[:, :, number].flatten()).view(logits.shape[:2])
        else:
            choice = logits.argmax(dim=-1)
        is_known = torch.arange(batch.shape[2], device=device) < known_lengths[:, None]
        batch[:, number] = torch.where(is_known, batch[:, number], choice)
    return [
        row[:, request.prompt_frames : len(whole)].cpu()
        for row, request, whole in zip(batch, requests, codes, strict=True)
    ]
