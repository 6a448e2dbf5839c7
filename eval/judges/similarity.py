"""How alike two voices sound: cosine similarity of speaker embeddings."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.eval.judges.measure import Score, UnmeasurableError, check_audible, load_pretrained, optional_package

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.5
"""Speech below this says too little of a voice."""


_RESEMBLYZER_DBFS = -30.0
"""`audio_norm_target_dBFS` of its hyperparameters."""


class SpeakerModel(ABC):
    """Speech to a point in the space of voices."""

    name: str

    def embed(self, wav: Tensor, sample_rate: int) -> Tensor:
        """Embedding [D] of unit length of `wav` [S] at `sample_rate` Hz.

        Raises `UnmeasurableError` for silence, and for less than half a second of speech.
        """
        check_audible(wav, "recording")
        audio = resample(wav.detach().cpu().float().clamp(-1, 1).numpy(), sample_rate, SAMPLE_RATE)
        if len(audio) < MIN_SECONDS * SAMPLE_RATE:
            raise UnmeasurableError(f"recording: shorter than {MIN_SECONDS} s")
        return torch.nn.functional.normalize(self._embed(audio), dim=0)

    @abstractmethod
    def _embed(self, audio: np.ndarray) -> Tensor:
        """Embedding [D] of an audible recording, float32 [S] at 16 kHz."""


class Resemblyzer(SpeakerModel):
    """The GE2E encoder of the Resemblyzer package, weights included: the similarity of the TiCodec paper."""

    name = "resemblyzer"

    def __init__(self, device: str = "cpu") -> None:
        with warnings.catch_warnings():
            # It imports names that scipy and setuptools have moved; both still work at the versions of setup.cfg.
            warnings.simplefilter("ignore")
            package = optional_package("resemblyzer", "Resemblyzer>=0.1.4' 'setuptools<81")
        self._preprocess = package.preprocess_wav
        self._encoder = package.VoiceEncoder(device, verbose=False)

    def _embed(self, audio: np.ndarray) -> Tensor:
        # Its own preprocessing raises quiet recordings to this level but leaves loud ones: two copies of one recording,
        # 10 dB apart, would have a similarity of 0.88.
        audio = audio * (10 ** (_RESEMBLYZER_DBFS / 20) / np.sqrt(np.mean(audio**2)))
        speech = self._preprocess(audio, source_sr=SAMPLE_RATE)
        if len(speech) < MIN_SECONDS * SAMPLE_RATE:
            raise UnmeasurableError(f"recording: less than {MIN_SECONDS} s of speech found")
        return torch.from_numpy(self._encoder.embed_utterance(speech))


class XVector(SpeakerModel):
    """WavLM with an x-vector head (microsoft/wavlm-base-plus-sv) through transformers."""

    name = "wavlm"

    def __init__(self, model: str = "microsoft/wavlm-base-plus-sv", device: str = "cpu") -> None:
        what = f"speaker model '{self.name}'"
        self._device = device
        self._features = load_pretrained("AutoFeatureExtractor", model, what)
        self._model = load_pretrained("AutoModelForAudioXVector", model, what).to(device).eval()

    @torch.inference_mode()
    def _embed(self, audio: np.ndarray) -> Tensor:
        inputs = self._features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").to(self._device)
        return self._model(**inputs).embeddings[0].float().cpu()


def speaker_model_names() -> list[str]:
    """All known speaker models, the default first."""
    return [Resemblyzer.name, XVector.name]


def build_speaker_model(name: str = Resemblyzer.name, model: str | None = None, device: str = "cpu") -> SpeakerModel:
    """The speaker model called `name`; `model` is a folder or Hub id of other weights (wavlm only).

    Raises `UserError` for an unknown name and for weights that cannot be had.
    """
    if name == Resemblyzer.name:
        if model is not None:
            raise UserError(f"speaker model '{name}' has its weights built in; leave out --speaker-weights {model}")
        return Resemblyzer(device)
    if name == XVector.name:
        return XVector(model, device) if model else XVector(device=device)
    raise UserError(f"unknown speaker model '{name}'; known speaker models: {', '.join(speaker_model_names())}")


@dataclass(frozen=True)
class SpeakerEmbedding:
    """The embedding [D] of a recording, or None with the reason."""

    embedding: Tensor | None
    reason: str = ""


def embed_all(model: SpeakerModel, wavs: Sequence[Tensor], sample_rate: int) -> list[SpeakerEmbedding]:
    """The voices of `wavs` (each [S] at `sample_rate` Hz), in order."""
    return [
        _voice(model, wav, sample_rate) for wav in tqdm(wavs, desc=model.name, unit="utt", disable=None, leave=False)
    ]


def likeness(a: SpeakerEmbedding, b: SpeakerEmbedding) -> Score:
    """Cosine similarity of two voices, from -1 to 1 (Resemblyzer: from 0)."""
    if a.embedding is None or b.embedding is None:
        return Score(None, a.reason or b.reason)
    return Score(float(a.embedding.double() @ b.embedding.double()))


@dataclass(frozen=True)
class VoiceSpread:
    """What likeness means for some recordings: for each, its mean likeness to others; None without any.

    Averaging within a recording first leaves one value a recording, so that bootstrapping over recordings is sound.
    """

    same_speaker: list[float | None]
    """To the other recordings of its speaker: what a perfect clone would reach."""
    different_speakers: list[float | None]
    """To all recordings of other speakers: what ignoring the prompt would reach."""


def voice_spread(voices: Sequence[SpeakerEmbedding], speakers: Sequence[str]) -> VoiceSpread:
    """`VoiceSpread` of recordings with these voices and speaker names."""
    same: list[float | None] = []
    different: list[float | None] = []
    for i, own in enumerate(voices):
        others = [(likeness(own, voice).value, speakers[j]) for j, voice in enumerate(voices) if j != i]
        same.append(_mean([value for value, speaker in others if speaker == speakers[i]]))
        different.append(_mean([value for value, speaker in others if speaker != speakers[i]]))
    return VoiceSpread(same, different)


def _voice(model: SpeakerModel, wav: Tensor, sample_rate: int) -> SpeakerEmbedding:
    try:
        return SpeakerEmbedding(model.embed(wav, sample_rate))
    except UnmeasurableError as error:
        return SpeakerEmbedding(None, str(error))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
