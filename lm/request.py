"""What is to be spoken, and what the AR model said.

Shapes: B requests, L text tokens, G time-invariant codes, T' prompt frames, T new frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Request:
    """One utterance to speak.

    phonemes:         LongTensor [L], the text of the prompt (if its frames are given), then the text to speak
    time_invariant:   LongTensor [G] of the voice, or None
    prompt_codes:     LongTensor [n_q, T'], or None for no acoustic prompt
    prompt_phonemes:  how many of the text tokens the prompt speaks
    prompt_durations: LongTensor [prompt_phonemes], frames of each; for aligned models with a prompt
    voice_codes:      LongTensor [n_q, T''], speech of the voice for a flow; whatever is said in it
    live:             whether it is heard while it is spoken
    """

    phonemes: Tensor
    time_invariant: Tensor | None = None
    prompt_codes: Tensor | None = None
    prompt_phonemes: int = 0
    prompt_durations: Tensor | None = None
    seed: int = 0
    voice_codes: Tensor | None = None
    live: bool = False

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
class RequestBatch:
    """Requests, padded: phonemes and durations [B, L], codes of the prompts [B, n_q, T'], time_invariant [B, G]."""

    phonemes: Tensor
    phoneme_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    durations: Tensor | None
    time_invariant: Tensor | None

    @classmethod
    def of(cls, requests: Sequence[Request], aligned: bool, device: torch.device) -> RequestBatch:
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
        prompts = [
            torch.zeros(0, 1, dtype=torch.long) if r.prompt_codes is None else r.prompt_codes.T for r in requests
        ]
        quantizers = max(p.shape[1] for p in prompts)
        prompts = [p if len(p) else p.new_zeros(0, quantizers) for p in prompts]
        return cls(
            phonemes=phonemes.to(device),
            phoneme_lengths=torch.tensor([len(r.phonemes) for r in requests], device=device),
            codes=pad_sequence(prompts, batch_first=True).transpose(1, 2).to(device),
            code_lengths=torch.tensor([r.prompt_frames for r in requests], device=device),
            durations=None if durations is None else durations.to(device),
            time_invariant=torch.stack(voices).to(device) if voices else None,
        )


def uniform_noise(
    requests: Sequence[Request], rows: Tensor, columns: int, device: torch.device, stream: int = 0
) -> Tensor:
    """Uniform numbers [B, max(rows), columns], each request's from its own seed; drawn on the CPU for any device."""
    drawn = []
    for request, count in zip(requests, rows.tolist(), strict=True):
        generator = torch.Generator().manual_seed(2 * request.seed + stream)
        drawn.append(torch.rand(count, columns, generator=generator))
    return pad_sequence(drawn, batch_first=True).to(device)
