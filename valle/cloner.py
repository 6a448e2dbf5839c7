"""`VoiceCloner`: text in, speech out, in the voice of a recording (VALL-E, section 4.3).

Shapes: S samples, L text tokens, n_q quantizers, T frames, G time-invariant codes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from valle.bundle import Bundle
from valle.device import find_device
from valle.hub import find_model
from valle.lm import Generated, Request, Sampling, complete, generate
from valle.prompt import Prompt, load_prompt
from valle.tokenizers.audio import save_audio
from valle.tokenizers.codecs.base import SpeechCodes
from valle.tokenizers.errors import UserError
from valle.tokenizers.text import split_sentences

MAX_CHARACTERS = 20_000
"""About twenty minutes of speech."""
PAUSE_SECONDS = 0.15
"""Silence between two sentences, besides the one that the model puts at their ends."""
BATCH = 8
"""Sentences decoded at once: their codes are the same one by one, only later."""
TOKEN_SECONDS = 0.08
"""A phoneme or pause lasts about so long: only for showing progress."""

PromptSource = str | Path | tuple[Tensor, int]


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
    notes: list[str] = field(default_factory=list)
    """What the user may want to know, one line each."""


@dataclass(frozen=True)
class Speech:
    """The result of cloning.

    wav:   FloatTensor [S]
    codes: LongTensor [n_q, T], all sentences one after another
    """

    wav: Tensor
    sample_rate: int
    codes: Tensor
    stop_reason: str
    """"eos" or "end_of_text": complete; "max_length": a sentence was cut off."""
    real_time_factor: float
    """Seconds of computing per second of speech."""
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.wav.shape[0] / self.sample_rate

    def save(self, path: str | Path) -> None:
        """Write the audio; the format follows the file name (.wav, .flac, .ogg, .mp3)."""
        save_audio(path, self.wav, self.sample_rate)


class VoiceCloner:
    """Speaks any text in the voice of a short recording."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.device = next(bundle.codec.parameters()).device

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, device: str = "auto") -> VoiceCloner:
        """The embedded model (None), a model folder, or a Hugging Face Hub id. `device`: auto, cpu, cuda, mps, …"""
        return cls(Bundle.load(find_model(model), find_device(device)))

    @property
    def sample_rate(self) -> int:
        return self.bundle.codec.spec.sample_rate

    @torch.inference_mode()
    def voice(self, prompt: PromptSource, prompt_text: str | None = None, language: str = "en-us") -> Voice:
        """Prepare a recording: a path, or `(wav, rate)` with `wav` [S] or [C, S].

        prompt_text: what is said in it; the output then follows its manner more closely
        """
        recording = load_prompt(prompt, self.sample_rate)
        encoded = self.bundle.codec.encode(recording.wav[None, None].to(self.device)).to("cpu")
        codes, ti = encoded.codes[0], None if encoded.time_invariant is None else encoded.time_invariant[0]
        bare = Voice(recording, codes, ti, notes=recording.notes)
        if prompt_text is None:
            return self._without_transcript(bare)
        if recording.is_cut:
            return self._without_transcript(bare, "the transcript is not used: the recording is too long for it")
        phonemes = self._phonemes(prompt_text, language)
        if not self.bundle.ar.config.aligned:
            return Voice(recording, codes, ti, phonemes, notes=recording.notes)
        if self.bundle.aligner is None:
            return self._without_transcript(bare, "the transcript is not used: this model has no aligner")
        durations = self.bundle.aligner.align([phonemes.tolist()], [recording.wav], [codes.shape[1]])[0]
        if durations is None:
            return self._without_transcript(bare, "the transcript is not used: it is not what is said in the recording")
        return Voice(recording, codes, ti, phonemes, torch.tensor(durations), recording.notes)

    def clone(
        self,
        text: str,
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        language: str = "en-us",
        progress: Callable[[float], None] | None = None,
    ) -> Speech:
        """Speak `text` in the voice of `prompt`; the same arguments give the same samples.

        sampling: default: what suits the model (`cloner.bundle.sampling`)
        progress: called now and then with the share of the text that is done, 0 to 1
        Raises `UserError` for a text or a recording that cannot be used.
        """
        started = time.perf_counter()
        sampling = sampling or self.bundle.sampling
        texts = self._sentences(text)
        voice = prompt if isinstance(prompt, Voice) else self.voice(prompt, prompt_text, language)
        requests = [self._request(self._phonemes(t, language), voice, seed, i) for i, t in enumerate(texts)]
        wavs, codes, reasons = [], [], []
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            spoken = generate(self.bundle.ar, batch, sampling, self._share_done(progress, requests, start))
            codes += self._complete(batch, spoken, sampling)
            reasons += [said.stop_reason for said in spoken]
            wavs += [self._decode(c, voice) for c in codes[start:]]
        wav = torch.cat(list(_with_pauses(wavs, int(PAUSE_SECONDS * self.sample_rate))))
        seconds = wav.shape[0] / self.sample_rate
        cut_off = "max_length" in reasons
        notes = [*voice.notes, *(["the model did not come to an end; try another seed"] if cut_off else [])]
        return Speech(
            wav=wav,
            sample_rate=self.sample_rate,
            codes=torch.cat(codes, dim=1),
            stop_reason="max_length" if cut_off else reasons[0],
            real_time_factor=(time.perf_counter() - started) / max(seconds, 1e-9),
            notes=notes,
        )

    def _without_transcript(self, voice: Voice, note: str | None = None) -> Voice:
        if voice.time_invariant is None:
            reason = f" ({note})" if note else ""
            raise UserError(f"this model needs the transcript of the prompt to know the voice{reason}")
        return Voice(voice.prompt, voice.codes, voice.time_invariant, notes=[*voice.notes, *([note] if note else [])])

    def _sentences(self, text: str) -> list[str]:
        if not text.strip():
            raise UserError("the text is empty; give something to say")
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"the text has {len(text):,} characters; give at most {MAX_CHARACTERS:,} at a time")
        pieces = split_sentences(text)
        # A line of asterisks between two paragraphs is nothing to say, but no mistake either.
        return [piece for piece in pieces if any(c.isalnum() for c in piece)] or pieces

    def _phonemes(self, text: str, language: str) -> Tensor:
        return torch.tensor(self.bundle.text.encode(text, language))

    def _request(self, phonemes: Tensor, voice: Voice, seed: int, index: int) -> Request:
        seed = seed * 1_000_003 + index
        if voice.phonemes is None:
            return Request(phonemes, voice.time_invariant, seed=seed)
        boundaries = self.bundle.text.boundary_ids
        if int(voice.phonemes[-1]) in boundaries and int(phonemes[0]) in boundaries:
            phonemes = phonemes[1:]  # words have one boundary between them, and the prompt ends with it
        return Request(
            torch.cat((voice.phonemes, phonemes)),
            voice.time_invariant,
            voice.codes,
            len(voice.phonemes),
            voice.durations,
            seed,
        )

    def _share_done(
        self, progress: Callable[[float], None] | None, requests: Sequence[Request], start: int
    ) -> Callable[[int], None] | None:
        """Turns frames of the batch that starts at `start` into the share of the whole text that is done."""
        if progress is None:
            return None
        tokens = [len(r.phonemes) - r.prompt_phonemes for r in requests]
        now = tokens[start : start + BATCH]
        frames_expected = max(now) * TOKEN_SECONDS * self.bundle.codec.spec.frame_rate

        def report(frames: int) -> None:
            progress((sum(tokens[:start]) + sum(now) * min(1.0, frames / frames_expected)) / sum(tokens))

        return report

    def _complete(self, requests: Sequence[Request], spoken: Sequence[Generated], sampling: Sampling) -> list[Tensor]:
        if self.bundle.nar is None:
            return [said.codes[None] for said in spoken]
        return complete(self.bundle.nar, requests, spoken, sampling)

    @torch.inference_mode()
    def _decode(self, codes: Tensor, voice: Voice) -> Tensor:
        """Waveform [S] of `codes` [n_q, T], with the time-invariant codes of the voice (TiCodec, section 2.2)."""
        ti = None if voice.time_invariant is None else voice.time_invariant[None]
        speech = SpeechCodes(codes[None], torch.tensor([codes.shape[1]]), ti).to(self.device)
        return self.bundle.codec.decode(speech)[0, 0].cpu()


def _with_pauses(wavs: Sequence[Tensor], samples: int) -> Iterator[Tensor]:
    for i, wav in enumerate(wavs):
        if i:
            yield torch.zeros(samples)
        yield wav
