"""What recogniser, speaker model and the rest make of one recording: `Judges`, and the `Judgement` that is kept.

A judgement depends on its recording and its text only, so any number of workers give the same ones.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valle.eval.measure import Score, UnmeasurableError
from valle.eval.naturalness import Naturalness, build_naturalness
from valle.eval.reading import Reading, ReadingJudge
from valle.eval.recognisers import Recogniser, build_recogniser
from valle.eval.similarity import SpeakerModel, Voice, build_speaker_model, embed_all

SAMPLE_RATE = 16_000
"""At which recordings are read; the judges listen at this rate."""


@dataclass(frozen=True)
class JudgeNames:
    """Which judges: what `Judges.build` needs, and what results say of them."""

    recogniser: str = "pocketsphinx"
    recogniser_model: str | None = None
    speaker_model: str = "resemblyzer"
    speaker_weights: str | None = None
    naturalness: tuple[str, ...] = ()
    """`NAME` or `NAME=WEIGHTS`."""
    reading: bool = True
    """Whether skipped and said-again words are looked for."""


@dataclass(frozen=True)
class Judgement:
    """What is known of one recording."""

    seconds: float
    heard: str
    voice: Voice
    naturalness: dict[str, Score] = field(default_factory=dict)
    reading: Reading | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the embedding keeps every bit."""
        embedding = self.voice.embedding
        return asdict(self) | {
            "voice": {
                "embedding": embedding is not None and base64.b64encode(embedding.float().numpy().tobytes()).decode(),
                "reason": self.voice.reason,
            }
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Judgement:
        """Inverse of `to_dict`."""
        packed, reading = content["voice"]["embedding"], content["reading"]
        embedding = torch.from_numpy(np.frombuffer(base64.b64decode(packed), np.float32).copy()) if packed else None
        return cls(
            seconds=content["seconds"],
            heard=content["heard"],
            voice=Voice(embedding, content["voice"]["reason"]),
            naturalness={name: Score(**score) for name, score in content["naturalness"].items()},
            reading=Reading(**reading) if reading else None,
        )


@dataclass
class Judges:
    """All of them, loaded."""

    recogniser: Recogniser
    speaker_model: SpeakerModel
    naturalness: list[Naturalness] = field(default_factory=list)
    reading: ReadingJudge | None = None

    @classmethod
    def build(cls, names: JudgeNames, device: str = "cpu") -> Judges:
        """Load what `names` says. Raises `UserError` for what is unknown or cannot be had."""
        return cls(
            build_recogniser(names.recogniser, names.recogniser_model, device, batch=8 if "cuda" in device else 1),
            build_speaker_model(names.speaker_model, names.speaker_weights, device),
            [
                build_naturalness(name, weights or None)
                for name, _, weights in (n.partition("=") for n in names.naturalness)
            ],
            ReadingJudge() if names.reading else None,
        )

    def judge(self, wavs: Sequence[Tensor], texts: Sequence[str | None]) -> list[Judgement]:
        """Judge `wavs` (each [S] at `SAMPLE_RATE`), which should say `texts`; None: only how they sound matters."""
        spoken = [i for i, text in enumerate(texts) if text is not None]
        words = self.recogniser.transcribe([wavs[i] for i in spoken], SAMPLE_RATE)
        heard = dict(zip(spoken, words, strict=True))
        return [
            Judgement(
                seconds=wav.shape[0] / SAMPLE_RATE,
                heard=heard.get(i, ""),
                voice=voice,
                naturalness=self._naturalness(wav),
                reading=self.reading(wav, text) if self.reading and text is not None else None,
            )
            for i, (wav, text, voice) in enumerate(
                zip(wavs, texts, embed_all(self.speaker_model, wavs, SAMPLE_RATE), strict=True)
            )
        ]

    def _naturalness(self, wav: Tensor) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        for predictor in self.naturalness:
            try:
                scores |= {name: Score(value) for name, value in predictor.score(wav, SAMPLE_RATE).items()}
            except UnmeasurableError as error:
                scores |= dict.fromkeys(predictor.parts, Score(None, str(error)))
        return scores
