"""The best of several takes, as a recogniser and a speaker model hear them: `TakeScorer`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from valle.common.errors import UserError
from valle.eval.recognisers import Recogniser, build_recogniser
from valle.eval.similarity import SpeakerModel, build_speaker_model, embed_all, likeness
from valle.eval.text import score_text
from valle.synthesis.prompt import Voice

JUDGES = ("own", "cer", "sim", "both")
"""By whom the best take may be chosen."""


class TakeScorer:
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
            takes = embed_all(self.speaker_model, wavs, sample_rate)
            # A take in which no voice is found is like nobody.
            scores = [s + (likeness(own, take).value or 0.0) for s, take in zip(scores, takes, strict=True)]
        return scores


def build_scorer(best_by: str) -> TakeScorer | None:
    """By the default recogniser's character errors ("cer"), the likeness to the prompt ("sim"), "both"; "own": None."""
    if best_by not in JUDGES:
        raise UserError(f"the best take cannot be chosen by '{best_by}'; known: {', '.join(JUDGES)}")
    if best_by == "own":
        return None
    recogniser = build_recogniser() if best_by != "sim" else None
    return TakeScorer(recogniser, build_speaker_model() if best_by != "cer" else None)
