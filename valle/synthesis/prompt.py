"""The voice to clone: a recording, read, checked, trimmed and brought to one level, and what the models see of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from valle.common.audio import AudioSource, load_audio, name_of, resample
from valle.common.errors import UserError
from valle.common.files import whole
from valle.synthesis.loudness import loudness
from valle.synthesis.model import Bundle
from valle.synthesis.result import player

PromptSource = AudioSource | tuple[Tensor | np.ndarray, int]
"""A recording: a path, the bytes of an audio file, such a file opened for reading, or `(wav, rate)`.

wav: Tensor or array [S], or with channels [C, S] or [S, C]; floats in [-1, 1], or signed integers of full scale
"""

MIN_SPEECH_SECONDS = 1.0
GOOD_SPEECH_SECONDS = 3.0
MAX_SECONDS = 12.0
"""Longer recordings are cut to their densest stretch: the models were trained on utterances, not on talks."""

_FRAME_SECONDS = 0.02
_SILENCE_DBFS = -65.0
_BELOW_SPEECH_DB = 30.0
"""A frame this far below the loud ones is a pause: soft consonants lie 20 dB below vowels, rooms 40 dB."""
_MARGIN_SECONDS = 0.1
SPEECH_DBFS = -23.0
"""Level of the speech (EBU R 128)."""
_PEAK = 0.95
_FULL_SCALE = {torch.int8: 2**7, torch.int16: 2**15, torch.int32: 2**31}
_RATES = (1_000, 1_000_000)


@dataclass(frozen=True)
class Prompt:
    """A usable recording of a voice.

    wav: float32 [S], trimmed and level-normalised
    """

    wav: Tensor
    sample_rate: int
    seconds_given: float
    """Length of the recording before trimming."""
    is_cut: bool
    """Whether speech was left out because the recording is long; its transcript then does not fit `wav`."""
    notes: list[str] = field(default_factory=list)
    """What the user may want to know, one line each."""
    loudness: float = SPEECH_DBFS
    """LUFS of the recording as it was given (ITU-R BS.1770)."""

    @property
    def seconds(self) -> float:
        return self.wav.shape[0] / self.sample_rate


def load_prompt(source: PromptSource, sample_rate: int) -> Prompt:
    """Prepare a recording at `sample_rate`.

    Raises `UserError` for a recording that is missing, unreadable, empty, silent or has less than a second of speech.
    """
    if isinstance(source, tuple):
        name, wav = "the prompt", _from_samples(source, sample_rate)
    else:
        name, wav = name_of(source), load_audio(source, sample_rate)
    given = wav.shape[0] / sample_rate
    frame = int(_FRAME_SECONDS * sample_rate)
    speech = _speech_frames(wav, frame)
    if not speech.any():
        raise UserError(f"{name} is silent ({given:.1f} s); record the voice again, closer to the microphone")
    seconds = int(speech.sum()) * _FRAME_SECONDS
    if seconds < MIN_SPEECH_SECONDS:
        raise UserError(
            f"{name} has only {seconds:.1f} s of speech; give at least {MIN_SPEECH_SECONDS:.0f} s "
            f"({GOOD_SPEECH_SECONDS:.0f} s or more recommended)"
        )
    notes = []
    if seconds < GOOD_SPEECH_SECONDS:
        notes.append(
            f"{name} has {seconds:.1f} s of speech; {GOOD_SPEECH_SECONDS:.0f} s or more give a closer likeness"
        )
    if (wav.abs() >= 0.999).float().mean() > 1e-3:
        notes.append(f"{name} is clipped (too loud when recorded); a cleaner recording gives a better voice")
    start, end = _bounds(speech, int(_MARGIN_SECONDS / _FRAME_SECONDS))
    is_cut = (end - start) * _FRAME_SECONDS > MAX_SECONDS
    if is_cut:
        start, end = _densest(speech, int(MAX_SECONDS / _FRAME_SECONDS))
        notes.append(
            f"{name} is {given:.0f} s long; used is {start * _FRAME_SECONDS:.0f}-{end * _FRAME_SECONDS:.0f} s, "
            "where there is most speech"
        )
    gain, used = _gain(wav, speech, frame), wav[start * frame : end * frame]
    return Prompt(used * gain, sample_rate, given, is_cut, notes, loudness(used, sample_rate))


def _from_samples(source: tuple[Tensor | np.ndarray, int], sample_rate: int) -> Tensor:
    try:
        given, rate = source
        wav = given.detach().cpu() if isinstance(given, Tensor) else torch.from_numpy(np.ascontiguousarray(given))
        rate = round(float(rate))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the prompt must be (wav, rate), with samples in a tensor or an array: {error}") from error
    full_scale = 1 if wav.is_floating_point() else _FULL_SCALE.get(wav.dtype)
    if wav.dim() not in (1, 2) or wav.numel() < 2 or full_scale is None or not wav.isfinite().all():
        raise UserError(
            "the prompt must be finite samples of shape [S], [C, S] or [S, C], floats in [-1, 1] or signed integers of "
            f"8, 16 or 32 bits, got {wav.dtype} {list(wav.shape)}"
        )
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(f"the prompt must be (wav, rate), with {_RATES[0]} to {_RATES[1]} samples a second, got {rate}")
    wav = wav.float() / full_scale
    # Nobody has more channels than samples.
    mono = wav.mean(dim=int(wav.shape[0] > wav.shape[1])) if wav.dim() == 2 else wav
    return torch.from_numpy(resample(mono.numpy(), rate, sample_rate))


def _speech_frames(wav: Tensor, frame: int) -> Tensor:
    """Which frames hold speech, by their energy: bool [S // frame]."""
    frames = wav[: wav.shape[0] // frame * frame].view(-1, frame)
    if frames.shape[0] == 0:
        return torch.zeros(0, dtype=torch.bool)
    # The mean is taken out so that a DC offset, which nobody hears, does not count as sound.
    level = 10 * torch.log10(frames.var(dim=1, correction=0) + 1e-12)
    loud = torch.quantile(level[:: max(1, level.shape[0] // 100_000)], 0.95)
    return level > max(_SILENCE_DBFS, float(loud) - _BELOW_SPEECH_DB)


def _bounds(speech: Tensor, margin: int) -> tuple[int, int]:
    where = speech.nonzero()[:, 0]
    return max(0, int(where[0]) - margin), min(speech.shape[0], int(where[-1]) + 1 + margin)


def _densest(speech: Tensor, size: int) -> tuple[int, int]:
    """The first window of `size` frames that holds the most speech."""
    total = torch.cat([torch.zeros(1, dtype=torch.long), speech.long().cumsum(0)])
    start = int((total[size:] - total[:-size]).argmax())
    return start, start + size


def _gain(wav: Tensor, speech: Tensor, frame: int) -> float:
    """Factor that brings the speech to `SPEECH_DBFS` without clipping."""
    voiced = wav[: speech.shape[0] * frame].view(-1, frame)[speech]
    wanted = 10 ** (SPEECH_DBFS / 20) / float(voiced.square().mean().sqrt())
    return min(wanted, _PEAK / float(wav.abs().max()))


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
