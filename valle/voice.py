"""A voice to clone, ready for use: `make_voice`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from valle.bundle import Bundle
from valle.prompt import Prompt, load_prompt
from valle.tokenizers.errors import UserError

PromptSource = str | Path | tuple[Tensor, int]
"""A path, or `(wav, rate)` with `wav` [S] or [C, S]."""


@dataclass(frozen=True)
class Voice:
    """A recording as the models see it; made once, used for any number of texts.

    codes:          LongTensor [n_q, T]
    time_invariant: LongTensor [G], or None where the codec has none
    phonemes:       LongTensor [L] of the transcript, or None: then `codes` are not used as acoustic prompt
    durations:      LongTensor [L], frames of each phoneme, for aligned models
    """

    prompt: Prompt
    codes: Tensor
    time_invariant: Tensor | None
    phonemes: Tensor | None = None
    durations: Tensor | None = None
    notes: Sequence[str] = field(default_factory=list)
    """What the user may want to know, one line each."""


@torch.inference_mode()
def make_voice(bundle: Bundle, prompt: PromptSource, prompt_text: str | None = None, language: str = "en-us") -> Voice:
    """Prepare a recording; `prompt_text` is what is said in it. Raises `UserError` for one that cannot be used."""
    codec = bundle.codec
    recording = load_prompt(prompt, codec.spec.sample_rate)
    encoded = codec.encode(recording.wav[None, None].to(next(codec.parameters()).device)).to("cpu")
    ti = None if encoded.time_invariant is None else encoded.time_invariant[0]
    bare = Voice(recording, encoded.codes[0], ti, notes=recording.notes)
    if prompt_text is None:
        return _without_transcript(bare)
    if recording.is_cut:
        return _without_transcript(bare, "the transcript is not used: the recording is too long for it")
    phonemes = torch.tensor(bundle.text.encode(prompt_text, language))
    if not bundle.ar.config.aligned:
        return replace(bare, phonemes=phonemes)
    if bundle.aligner is None:
        return _without_transcript(bare, "the transcript is not used: this model has no aligner")
    durations = bundle.aligner.align([phonemes.tolist()], [recording.wav], [bare.codes.shape[1]])[0]
    if durations is None:
        return _without_transcript(bare, "the transcript is not used: it is not what is said in the recording")
    return replace(bare, phonemes=phonemes, durations=torch.tensor(durations))


def _without_transcript(voice: Voice, note: str | None = None) -> Voice:
    if voice.time_invariant is None:
        reason = f" ({note})" if note else ""
        raise UserError(f"this model needs the transcript of the prompt to know the voice{reason}")
    return replace(voice, notes=[*voice.notes, *([note] if note else [])])
