"""Speech recognisers behind one interface: `build_recogniser(name)`.

`pocketsphinx` works offline (its model comes with its package) but hears badly; `hubert` is the recogniser of the
papers; `whisper-*` is the strongest, and `faster-whisper` the same several times as fast on a CPU. Error rates of
different recognisers cannot be compared with each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.eval.judges import sphinx
from valle.eval.judges.measure import load_pretrained, optional_package, why_inaudible

SAMPLE_RATE = 16_000
_MIN_SECONDS = 0.05
"""Below this no recogniser has a frame to look at."""


class Recogniser(ABC):
    """Speech to text. A transcript depends on nothing but its own recording: not on order, batch or other calls."""

    name: str

    def transcribe(self, wavs: list[Tensor], sample_rate: int) -> list[str]:
        """Texts of `wavs` (each float [S] at `sample_rate` Hz); "" for silence, and for clips below 50 ms."""
        texts = [""] * len(wavs)
        heard = [
            i for i, wav in enumerate(wavs) if wav.shape[0] >= _MIN_SECONDS * sample_rate and not why_inaudible(wav)
        ]
        audio = [resample(wavs[i].detach().cpu().float().clamp(-1, 1).numpy(), sample_rate, SAMPLE_RATE) for i in heard]
        results = tqdm(self._recognise(audio), desc=self.name, total=len(heard), unit="utt", disable=None, leave=False)
        for i, text in zip(heard, results, strict=True):
            texts[i] = text.strip()
        return texts

    @abstractmethod
    def _recognise(self, wavs: list[np.ndarray]) -> Iterable[str]:
        """Texts of audible recordings, each float32 [S] at 16 kHz in [-1, 1]."""


class PocketSphinx(Recogniser):
    """CMU PocketSphinx with the US English model of its package (16 kHz)."""

    name = "pocketsphinx"

    def __init__(self, jobs: int = 1) -> None:
        optional_package("pocketsphinx", "pocketsphinx>=5.0")
        self.jobs = jobs

    def _recognise(self, wavs: list[np.ndarray]) -> Iterable[str]:
        return sphinx.transcribe_all(wavs, self.jobs)


class CTC(Recogniser):
    """A wav2vec 2.0 or HuBERT model with a CTC head, decoded greedily."""

    def __init__(self, name: str, model: str, device: str = "cpu", batch: int = 1) -> None:
        self.name, self.device = name, device
        what = f"recogniser '{name}'"
        self.processor = load_pretrained("AutoProcessor", model, what)
        self.model = load_pretrained("AutoModelForCTC", model, what).to(device).eval()
        # With a group norm over time, padding would change what is heard.
        self.batch = batch if self.model.config.feat_extract_norm == "layer" else 1

    @torch.inference_mode()
    def _recognise(self, wavs: list[np.ndarray]) -> Iterable[str]:
        for start in range(0, len(wavs), self.batch):
            group = wavs[start : start + self.batch]
            inputs = self.processor(
                group, sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=True, return_attention_mask=True
            ).to(self.device)
            frames = self.model._get_feat_extract_output_lengths(torch.tensor([len(wav) for wav in group])).tolist()
            for path, n in zip(self.model(**inputs).logits.argmax(dim=-1), frames, strict=True):
                yield self.processor.batch_decode(path[None, :n])[0]


class Whisper(Recogniser):
    """OpenAI Whisper, greedy; recordings beyond 30 s one at a time, by its own long-form procedure."""

    _WINDOW_SECONDS = 30

    def __init__(self, name: str, model: str, device: str = "cpu", batch: int = 1, language: str = "en") -> None:
        self.name, self.device, self.batch = name, device, batch
        what = f"recogniser '{name}'"
        self.processor = load_pretrained("AutoProcessor", model, what)
        self.model = load_pretrained("WhisperForConditionalGeneration", model, what).to(device).eval()
        self.options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if getattr(self.model.generation_config, "is_multilingual", False):
            self.options |= {"language": language, "task": "transcribe"}

    @torch.inference_mode()
    def _recognise(self, wavs: list[np.ndarray]) -> Iterable[str]:
        for is_long, group in self._groups(wavs):
            how = {"truncation": False, "padding": "longest"} if is_long else {}
            inputs = self.processor(
                group, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **how
            ).to(self.device)
            tokens = self.model.generate(**inputs, return_timestamps=is_long, **self.options)
            yield from self.processor.batch_decode(tokens, skip_special_tokens=True)

    def _groups(self, wavs: list[np.ndarray]) -> Iterator[tuple[bool, list[np.ndarray]]]:
        """`wavs` in order: long ones alone, others by up to `batch`."""
        group: list[np.ndarray] = []
        for wav in wavs:
            is_long = len(wav) > self._WINDOW_SECONDS * SAMPLE_RATE
            if group and (is_long or len(group) == self.batch):
                yield False, group
                group = []
            if is_long:
                yield True, [wav]
            else:
                group.append(wav)
        if group:
            yield False, group


class FasterWhisper(Recogniser):
    """OpenAI Whisper by CTranslate2 (int8 on a CPU), greedy, each window without a memory of the one before."""

    name = "faster-whisper"

    def __init__(self, model: str = "base", device: str = "cpu", language: str = "en") -> None:
        """`model`: a folder of weights as CTranslate2 has them, a Hub id of one, or a size of Whisper."""
        package = optional_package("faster_whisper", "faster-whisper>=1.1")
        torch.set_flush_denormal(False)  # loading CTranslate2 makes the whole process flush them
        how = ("cuda", "float16") if device.startswith("cuda") else ("cpu", "int8")
        try:
            self.model = package.WhisperModel(model, device=how[0], compute_type=how[1], cpu_threads=1)
        except Exception as error:  # CTranslate2, the tokenizer and the Hub each raise their own types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
            raise UserError(
                f"the weights of recogniser '{self.name}' cannot be loaded from '{model}' ({reason}); on a machine "
                "that reaches the Hugging Face Hub: hf download Systran/faster-whisper-base --local-dir DIR; then give "
                "--recogniser-model DIR"
            ) from error
        self.options: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
        self.options["language"] = language if self.model.model.is_multilingual else "en"

    def _recognise(self, wavs: list[np.ndarray]) -> Iterable[str]:
        for wav in wavs:
            segments, _ = self.model.transcribe(wav, **self.options)
            yield " ".join(segment.text.strip() for segment in segments)


_SIZES = ("tiny", "base", "small", "medium", "large-v2", "large-v3", "large-v3-turbo")
_PRETRAINED: dict[str, tuple[type[CTC | Whisper], str]] = {
    "hubert": (CTC, "facebook/hubert-large-ls960-ft"),
    **{f"whisper-{size}": (Whisper, f"openai/whisper-{size}") for size in _SIZES},
}


def recogniser_names() -> list[str]:
    """All known recognisers, the default first."""
    return [PocketSphinx.name, FasterWhisper.name, *_PRETRAINED]


def build_recogniser(
    name: str = PocketSphinx.name, model: str | None = None, device: str = "cpu", jobs: int = 1, batch: int = 1
) -> Recogniser:
    """The recogniser called `name`.

    model: folder or Hub id of the weights, where they are not to come from the recogniser's own Hub page; of
           faster-whisper also a size
    jobs:  processes of pocketsphinx; the others use `device`
    batch: recordings that the others hear at once; worth it on a GPU
    Raises `UserError` for an unknown name and for weights that cannot be had.
    """
    if name == PocketSphinx.name:
        if model is not None:
            raise UserError(f"recogniser '{name}' has its model built in; leave out --recogniser-model {model}")
        return PocketSphinx(jobs)
    if name == FasterWhisper.name:
        return FasterWhisper(model or "base", device)
    if name not in _PRETRAINED:
        raise UserError(f"unknown recogniser '{name}'; known recognisers: {', '.join(recogniser_names())}")
    kind, hub_id = _PRETRAINED[name]
    return kind(name, model or hub_id, device, batch)
