"""What recogniser, speaker model and the rest make of a recording: `Judges`, and the `Judgement` that is kept.

A judgement depends on its recording and its text only, so any number of workers give the same ones. Two of the judges
may also choose the best of several candidates: `CandidateScorer`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.eval.judges.measure import Score, UnmeasurableError
from valle.eval.judges.naturalness import Naturalness, build_naturalness
from valle.eval.judges.reading import Reading, ReadingJudge
from valle.eval.judges.recognisers import Recogniser, build_recogniser
from valle.eval.judges.similarity import SpeakerEmbedding, SpeakerModel, build_speaker_model, embed_all, likeness
from valle.eval.judges.text import score_text
from valle.synthesis.prompt import Voice

SAMPLE_RATE = 16_000
"""At which recordings are read; the judges listen at this rate."""
BEST_BY = ("own", "cer", "sim", "both")
"""By whom the best candidate may be chosen."""


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
    voice: SpeakerEmbedding
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
            voice=SpeakerEmbedding(embedding, content["voice"]["reason"]),
            naturalness={name: Score(**score) for name, score in content["naturalness"].items()},
            reading=Reading(**reading) if reading else None,
        )

    def heard_columns(self, text: str) -> dict[str, str | float | None]:
        """For a `valle.eval.results.Row`: what was heard where `text` should have been said."""
        return score_text(text, self.heard).columns() | (self.reading.columns() if self.reading else {})

    def naturalness_columns(self) -> dict[str, str | float | None]:
        """For a `Row`, too."""
        return {name: score.value for name, score in self.naturalness.items()}


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


class CandidateScorer:
    """A `valle.synthesis.options.Scorer`: likeness to the prompt minus character error rate, or either of them."""

    def __init__(self, recogniser: Recogniser | None = None, speaker_model: SpeakerModel | None = None) -> None:
        if recogniser is None and speaker_model is None:
            raise ValueError("give a recogniser, a speaker model or both")
        self.recogniser, self.speaker_model = recogniser, speaker_model

    def __call__(self, text: str, voice: Voice, wavs: Sequence[Tensor], sample_rate: int) -> list[float]:
        """One score for each of `wavs` [S]; higher is better."""
        scores = [0.0] * len(wavs)
        if self.recogniser is not None:
            heard = self.recogniser.transcribe(list(wavs), sample_rate)
            scores = [-score_text(text, words).characters.rate for words in heard]
        if self.speaker_model is not None:
            own = embed_all(self.speaker_model, [voice.prompt.wav], voice.prompt.sample_rate)[0]
            candidates = embed_all(self.speaker_model, wavs, sample_rate)
            # A candidate in which no voice is found is like nobody.
            scores = [
                s + (likeness(own, candidate).value or 0.0) for s, candidate in zip(scores, candidates, strict=True)
            ]
        return scores


def build_scorer(best_by: str) -> CandidateScorer | None:
    """By the default recogniser's character errors ("cer"), the likeness to the prompt ("sim"), "both"; "own": None."""
    if best_by not in BEST_BY:
        raise UserError(f"the best candidate cannot be chosen by '{best_by}'; known: {', '.join(BEST_BY)}")
    if best_by == "own":
        return None
    recogniser = build_recogniser() if best_by != "sim" else None
    return CandidateScorer(recogniser, build_speaker_model() if best_by != "cer" else None)
