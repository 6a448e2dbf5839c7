"""How a text is to be spoken: `SynthesisOptions`, the same for commands, Python, servers and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from valle.common.errors import UserError
from valle.lm import Sampling
from valle.synthesis.prompt import Voice

CANDIDATES = 4
"""Readings of a sentence among which the best is kept, where nobody waits for the first sound."""

Scorer = Callable[[str, Voice, Sequence[Tensor], int], Sequence[float]]
"""`scorer(text, voice, wavs, sample_rate)` gives one number for each of `wavs` [S]; the highest is the best."""


@dataclass(frozen=True)
class SynthesisOptions:
    """With the same options a model speaks the same text and voice with the same samples."""

    seed: int = 0
    """Another seed, another reading."""
    language: str = "en-us"
    """Of the text."""
    sampling: Sampling | None = None
    """None: what suits the model (`Bundle.sampling`)."""
    candidates: int | None = None
    """How often each sentence is spoken, to keep the best; None: `CANDIDATES`, or once where it is heard at once."""
    retries: int = 2
    """More candidates where all so far got stuck, repeat themselves or come to no end (`ranking.find_fault`)."""
    scorer: Scorer | None = None
    """Says which candidate is the best; None: the model's own `ranking.OwnEar`."""

    def __post_init__(self) -> None:
        if not 1 <= self.count(stream=False) <= 100 or not 0 <= self.retries <= 100:
            raise UserError(
                f"candidates (--n-best) must be 1 to 100 and retries 0 to 100, got {self.candidates} and {self.retries}"
            )

    def count(self, stream: bool) -> int:
        """Candidates of each sentence; `stream`: it is to be heard while it is spoken."""
        if self.candidates is not None:
            return self.candidates
        return 1 if stream else CANDIDATES
