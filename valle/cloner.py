"""`VoiceCloner`: text in, speech out, in the voice of a recording (VALL-E, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from valle.bundle import Bundle
from valle.device import find_device
from valle.engine import ROWS, STREAM_AHEAD, Engine
from valle.lm import Sampling
from valle.lm.precision import for_steps
from valle.lm.prefills import Prefills
from valle.pieces import BEST_OF, Takes, cut_text
from valle.prompt import load_prompt
from valle.speech import Speech, SpeechChunk
from valle.threads import computing_with, threads_to_speak
from valle.tokenizers.hub import find_model
from valle.voice import PromptSource, Voice, make_voice


class VoiceCloner:
    """Speaks any text in the voice of a short recording.

    precision: of the AR model's steps: fp32, bf16, fp16, int8, or auto (`valle.lm.precision`)
    threads:   of the CPU, while it speaks; None: as many as suit the model (`valle.threads`)
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

    @property
    def sample_rate(self) -> int:
        return self.bundle.codec.spec.sample_rate

    def make_voice(self, prompt: PromptSource, prompt_text: str | None = None, language: str = "en-us") -> Voice:
        """Prepare a recording, once for any number of texts: a path, or `(wav, rate)` with `wav` [S] or [C, S].

        prompt_text: what is said in it; the output then follows its manner more closely
        """
        with computing_with(self.threads):
            return make_voice(self.bundle, prompt, prompt_text, language)

    def engine(self, sampling: Sampling | None = None, rows: int = ROWS) -> Engine:
        """Speaks many texts at once, `rows` sentences at a time; for servers and long lists.

        It computes with the threads of whoever drives it: `valle.threads.computing_with(cloner.threads)`.
        """
        return Engine(self.bundle, sampling, rows, self._stepper, self._prefills)

    def clone(
        self,
        text: str,
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        language: str = "en-us",
        progress: Callable[[float], None] | None = None,
        takes: Takes | None = None,
    ) -> Speech:
        """Speak `text` in the voice of `prompt`; the same arguments give the same samples.

        sampling: default: what suits the model (`cloner.bundle.sampling`)
        progress: called now and then with the share of the text that is done, 0 to 1
        takes:    how many times each sentence is spoken, and which take is kept; default: four times, and the one
                  in which the model itself hears text and voice best; `Takes()` is the first that is not faulty
        Raises `UserError` for a text or a recording that cannot be used.
        """
        voice = prompt if isinstance(prompt, Voice) else self.make_voice(prompt, prompt_text, language)
        takes = takes or Takes(BEST_OF)
        # No more rows than there are sentences: a row of a large model takes many megabytes.
        engine = self.engine(sampling, min(ROWS, len(cut_text(text, takes.n_best)) * takes.n_best))
        task = engine.submit(text, voice, seed, language, takes)
        with computing_with(self.threads):
            while engine.busy:
                engine.step()
                if progress is not None:
                    progress(task.share)
        if task.error is not None:
            raise task.error
        return task.speech()

    @torch.inference_mode()
    def resynthesise(self, prompt: PromptSource) -> tuple[Tensor, int]:
        """`(wav, rate)`: what the codec makes of the recording [S], of as many quantizers as the model speaks with.

        It is trimmed and levelled as for cloning.
        """
        codec = self.bundle.codec
        wav = load_prompt(prompt, codec.spec.sample_rate).wav
        with computing_with(self.threads):
            codes = codec.encode(wav[None, None].to(self.device))
            spoken = codec.spec.n_q if self.bundle.nar else 1
            decoded = codec.decode(codes.first(spoken))
        return decoded[0, 0, : wav.shape[0]].cpu(), codec.spec.sample_rate

    def stream(
        self,
        text: str,
        prompt: PromptSource | Voice,
        prompt_text: str | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        language: str = "en-us",
        takes: Takes | None = None,
    ) -> Iterator[SpeechChunk]:
        """`clone` in parts, as soon as they can be heard; the last one says how it went. Close it to stop early.

        Says what one take of `clone` says with the same seed, unless a sound lasts longer than a stream allows
        (`Sampling.live_phone_frames`); the audio may differ where a sentence is heard before it is complete.

        takes: default: one; with more, nothing is heard before all takes of the first sentence are there
        """
        voice = prompt if isinstance(prompt, Voice) else self.make_voice(prompt, prompt_text, language)
        engine = self.engine(sampling, STREAM_AHEAD)
        task = engine.submit(text, voice, seed, language, takes, stream=True)
        with computing_with(self.threads):
            while engine.busy:
                engine.step()
                yield from task.take_chunks()
        if task.error is not None:
            raise task.error
