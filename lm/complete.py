"""The other quantizers: the stages of the NAR model over what the AR model said.

Shapes: n_q quantizers, T new frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.lm.nar import NARModel
from valle.lm.request import Generated, Request, RequestBatch, uniform_noise
from valle.lm.sampling import Sampling, draw, probabilities


@torch.inference_mode()
def complete(
    model: NARModel,
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
    device = model.codes.device
    inputs = RequestBatch.of(requests, model.config.aligned, device)
    codes, durations, done = [], [], []
    for index, (request, said) in enumerate(zip(requests, spoken, strict=True)):
        whole = torch.zeros(request.prompt_frames + len(said.codes), model.config.n_q, dtype=torch.long)
        if request.prompt_codes is not None:
            whole[: request.prompt_frames] = request.prompt_codes.T
        whole[request.prompt_frames :, 0] = said.codes
        done.append(request.prompt_frames)
        if known is not None:
            done[-1] += known[index].shape[1]
            whole[request.prompt_frames : done[-1]] = known[index].T
        codes.append(whole)
        if model.config.aligned:
            if said.durations is None:
                raise ValueError("an aligned NAR model needs durations, which a plain AR model does not give")
            before = [] if request.prompt_durations is None else [request.prompt_durations]
            durations.append(torch.cat((*before, said.durations)))
    batch = pad_sequence(codes, batch_first=True).transpose(1, 2).to(device)
    lengths = torch.tensor([len(c) for c in codes], device=device)
    known_lengths = torch.tensor(done, device=device)
    noise = uniform_noise(requests, lengths, model.config.n_q, device, stream=1)
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
