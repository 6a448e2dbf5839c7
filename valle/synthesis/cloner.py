"""`VoiceCloner`: text in, speech out, in the voice of a recording (VALL-E, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from valle.common.device import computing_with, find_device, threads_to_speak
from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.lm import Sampling
from valle.lm.kv_cache import Prefills
from valle.lm.precision import for_steps
from valle.synthesis.engine import ROWS, STREAM_AHEAD, Engine
from valle.synthesis.model import Bundle
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.prompt import PromptSource, Voice, load_prompt, make_voice
from valle.synthesis.result import Speech, SpeechChunk, SpokenPiece
from valle.synthesis.utterance import Utterance


class VoiceCloner:
    """Speaks any text in the voice of a short recording.

    precision: of the AR model's steps: fp32, bf16, fp16, int8, or auto (`valle.lm.precision`)
    threads:   of the CPU, while it speaks; None: as many as suit the model (`valle.common.device`)
    """

    def __init__(self, bundle: Bundle, precision: str = "auto", threads: int | None = None) -> None:
        self.bundle, self.threads = bundle, threads or threads_to_speak(bundle.ar)
        self.device = next(bundle.codec.parameters()).device
        self._stepper = for_steps(bundle.ar, precision)
        self._prefills = Prefills.beside(bundle.ar)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        any_language: bool = False,
    ) -> VoiceCloner:
        """The embedded model (None), a model folder, or a Hugging Face Hub id. `device`: auto, cpu, cuda, mps, …

        any_language: let it try languages that it was not trained on, too
        """
        bundle = Bundle.load(find_model(model), find_device(device))
        if any_language:
            bundle.languages = None
        return cls(bundle, precision, threads)

    def __repr__(self) -> str:
        ar = sum(p.numel() for p in self.bundle.ar.parameters())
        return f"VoiceCloner(codec {self.bundle.codec.spec.name}, AR of {ar / 1e6:.1f} M parameters, on {self.device})"

    @property
    def sample_rate(self) -> int:
        return self.bundle.codec.spec.sample_rate

    def make_voice(
        self,
        prompt: PromptSource,
        prompt_text: str | None = None,
        language: str = "en-us",
        loudness: float | None = None,
    ) -> Voice:
        """Prepare a recording, once for any number of texts.

        prompt:      a path, the bytes of an audio file, such a file opened for reading, or `(wav, rate)`: a tensor or
                     an array [S], [C, S] or [S, C]; floats in [-1, 1] or signed integers
        prompt_text: what is said in it; the output then follows its manner more closely
        loudness:    LUFS at which it is to speak; default: that of the recording
        """
        with computing_with(self.threads):
            return make_voice(self.bundle, prompt, prompt_text, language, loudness)

    def engine(self, sampling: Sampling | None = None, rows: int = ROWS) -> Engine:
        """Speaks many texts at once, `rows` sentences at a time; for servers and long lists.

        It computes with the threads of whoever drives it: `valle.common.device.computing_with(cloner.threads)`.
        """
        return Engine(self.bundle, sampling, rows, self._stepper, self._prefills)

    @overload
    def clone(
        self,
        text: str,
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        progress: Callable[[float], None] | None = None,
        again: Speech | None = None,
        **changes: Any,
    ) -> Speech: ...

    @overload
    def clone(
        self,
        text: list[str] | tuple[str, ...],
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        progress: Callable[[float], None] | None = None,
        **changes: Any,
    ) -> list[Speech]: ...

    def clone(
        self,
        text: str | list[str] | tuple[str, ...],
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        progress: Callable[[float], None] | None = None,
        again: Speech | None = None,
        **changes: Any,
    ) -> Speech | list[Speech]:
        """Speak `text` in the voice of `prompt`; the same arguments give the same samples.

        text:     of several texts, which are spoken in one batch, each gives what it gives alone, in their order
        options:  how; `changes` are some of them by their names: `clone(text, prompt, seed=3, candidates=1)`
        progress: called now and then with the share of the text that is done, 0 to 1
        again:    what the same arguments gave: its faulty pieces alone are spoken again, with other candidates
        Raises `UserError` for a text or a recording that cannot be used.
        """
        options = replace(options, **changes)
        texts = [text] if isinstance(text, str) else list(text)
        voice = prompt if isinstance(prompt, Voice) else self.make_voice(prompt, prompt_text, options.language)
        utterances, known = [], () if again is None else again.pieces
        for number, one in enumerate(texts, start=1):
            try:
                utterances.append(Utterance(self.bundle, one, voice, options, known=known, retry_faulty=True))
            except UserError as error:
                if isinstance(text, str):
                    raise
                raise UserError(f"text {number} of {len(texts)}: {error}") from error
        # No more rows than there are sentences: a row of a large model takes many megabytes.
        readings = sum(len(utterance.pieces) * utterance.candidates for utterance in utterances)
        engine = self.engine(options.sampling, max(1, min(ROWS, readings)))
        for utterance in utterances:
            engine.add(utterance)
        with computing_with(self.threads):
            while engine.busy:
                engine.step()
                if progress is not None:
                    progress(sum(utterance.share for utterance in utterances) / len(utterances))
        for utterance in utterances:
            if utterance.error is not None:
                raise utterance.error
        spoken = [utterance.speech() for utterance in utterances]
        return spoken[0] if isinstance(text, str) else spoken

    def sentences(
        self,
        text: str,
        voice: Voice,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        progress: Callable[[float], None] | None = None,
        known: Sequence[SpokenPiece] = (),
        retry_faulty: bool = False,
        **changes: Any,
    ) -> Iterator[SpeechChunk]:
        """What `clone` gives, sentence by sentence, for texts of any length; the last chunk says how it went.

        known, retry_faulty: see `Utterance`
        """
        options = replace(options, **changes)
        engine = self.engine(options.sampling)
        utterance = engine.submit(text, voice, options, known=known, retry_faulty=retry_faulty)
        return self._drive(engine, utterance, progress)

    def stream(
        self,
        text: str,
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        options: SynthesisOptions = SynthesisOptions(),
        **changes: Any,
    ) -> Iterator[SpeechChunk]:
        """`clone` in parts, as soon as they can be heard; the last one says how it went. Close it to stop early.

        Says what one candidate of `clone` says with the same seed, unless a sound lasts longer than a stream allows
        (`Sampling.live_phone_frames`); the audio may differ where a sentence is heard before it is complete.

        options: with more candidates than one, nothing is heard before all of the first sentence are there
        """
        options = replace(options, **changes)
        voice = prompt if isinstance(prompt, Voice) else self.make_voice(prompt, prompt_text, options.language)
        engine = self.engine(options.sampling, STREAM_AHEAD)
        return self._drive(engine, engine.submit(text, voice, options, stream=True))

    def _drive(
        self, engine: Engine, utterance: Utterance, progress: Callable[[float], None] | None = None
    ) -> Iterator[SpeechChunk]:
        with computing_with(self.threads):
            while engine.busy:
                engine.step()
                if progress is not None:
                    progress(utterance.share)
                yield from utterance.take_chunks()
        if utterance.error is not None:
            raise utterance.error

    @torch.inference_mode()
    def resynthesise(self, prompt: PromptSource) -> tuple[Tensor, int]:
        """`(wav, rate)`: what the codec makes of the recording [S], of as many quantizers as the model speaks with.

        It is trimmed and levelled as for cloning.
        """
        codec = self.bundle.codec
        wav = load_prompt(prompt, codec.spec.sample_rate).wav
        with computing_with(self.threads):
            codes = codec.encode(wav[None, None].to(self.device))
            spoken = codec.spec.n_q if self.bundle.refiner else 1
            decoded = codec.decode(codes.first(spoken))
        return decoded[0, 0, : wav.shape[0]].cpu(), codec.spec.sample_rate
