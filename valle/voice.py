"""A voice to clone, ready for use: `make_voice`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from valle.bundle import Bundle
from valle.common.errors import UserError
from valle.common.files import whole
from valle.prompt import Prompt, PromptSource, load_prompt
from valle.speech import player

_TENSORS = ("codes", "time_invariant", "phonemes", "durations")

LOUDNESS = (-36.0, -14.0)
"""LUFS of speech that is as loud as its recording: of one much softer or louder nobody wants that."""


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
    loudness: float | None = None
    """LUFS at which it speaks; None: however loud the model makes it."""
    made_with: dict[str, str] = field(default_factory=dict)
    """The parts of the model that it holds for (`Bundle.parts`)."""

    def __repr__(self) -> str:
        transcript = "without" if self.phonemes is None else "with"
        return f"Voice({self.prompt.seconds:.2f} s, {transcript} transcript, codec {self.made_with.get('codec')})"

    def _repr_html_(self) -> str:
        """A player of the recording as it is used, for notebooks."""
        return player(self.prompt.wav, self.prompt.sample_rate, [f"{self.prompt.seconds:.1f} s", *self.notes])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, some 70 kB for a second of the recording, which it holds as it is used.

        Raises `UserError` if that fails.
        """
        prompt = {name: value for name, value in vars(self.prompt).items() if name != "wav"}
        facts = {"prompt": prompt, "notes": list(self.notes), "made_with": self.made_with, "loudness": self.loudness}
        tensors = {name: tensor.contiguous() for name in _TENSORS if (tensor := getattr(self, name)) is not None}
        with whole(path) as part:
            part.write_bytes(save({"wav": self.prompt.wav.contiguous(), **tensors}, {"voice": json.dumps(facts)}))

    @classmethod
    def load(cls, path: str | Path) -> Voice:
        """Read what `save` wrote; nothing in the file is run. A model that the voice does not fit refuses to speak it.

        Raises `UserError` for a file that is missing, damaged or no voice.
        """
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["voice"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            prompt = Prompt(wav=tensors.pop("wav"), **facts.pop("prompt"))
            voice = cls(prompt, **{**dict.fromkeys(_TENSORS), **tensors}, **facts)
        except FileNotFoundError as error:
            raise UserError(f"voice file not found: {path}") from error
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no whole voice file; make it again with Voice.save") from error
        if voice.codes is None or voice.codes.dim() != 2 or prompt.wav.dim() != 1:
            raise UserError(f"{path} is no whole voice file; make it again with Voice.save")
        return voice

    def check_fits(self, bundle: Bundle) -> None:
        """Raise `UserError` naming both where the voice was made with another part than this model has."""
        for what, made_with in self.made_with.items():
            if bundle.parts.get(what) != made_with:
                raise UserError(
                    f"the voice was made with {what} '{made_with}', this model has '{bundle.parts.get(what)}'; "
                    "make the voice again, from its recording"
                )


@torch.inference_mode()
def make_voice(
    bundle: Bundle,
    prompt: PromptSource,
    prompt_text: str | None = None,
    language: str = "en-us",
    loudness: float | None = None,
) -> Voice:
    """Prepare a recording; `prompt_text` is what is said in it. Raises `UserError` for one that cannot be used.

    loudness: LUFS at which it is to speak; None: that of the recording, or what is nearest to it of `LOUDNESS`
    """
    codec = bundle.codec
    recording = load_prompt(prompt, codec.spec.sample_rate)
    encoded = codec.encode(recording.wav[None, None].to(next(codec.parameters()).device)).to("cpu")
    ti = None if encoded.time_invariant is None else encoded.time_invariant[0]
    known_parts = {"codec": bundle.parts["codec"]}
    if loudness is None:
        loudness = max(LOUDNESS[0], min(LOUDNESS[1], recording.loudness))
    bare = Voice(recording, encoded.codes[0], ti, notes=recording.notes, loudness=loudness, made_with=known_parts)
    if prompt_text is None:
        return _without_transcript(bare)
    bundle.check_language(language)
    if recording.is_cut:
        return _without_transcript(bare, "the transcript is not used: the recording is too long for it")
    phonemes = bundle.encode(prompt_text, language)
    if not bundle.ar.config.aligned:
        return replace(bare, phonemes=phonemes, made_with=bundle.parts)
    if bundle.aligner is None:
        return _without_transcript(bare, "the transcript is not used: this model has no aligner")
    durations = bundle.aligner.align([phonemes.tolist()], [recording.wav], [bare.codes.shape[1]])[0]
    if durations is None:
        return _without_transcript(bare, "the transcript is not used: it is not what is said in the recording")
    return replace(bare, phonemes=phonemes, durations=torch.tensor(durations), made_with=bundle.parts)


def _without_transcript(voice: Voice, note: str | None = None) -> Voice:
    if voice.time_invariant is None:
        reason = f" ({note})" if note else ""
        raise UserError(f"this model needs the transcript of the prompt to know the voice{reason}")
    return replace(voice, notes=[*voice.notes, *([note] if note else [])])
