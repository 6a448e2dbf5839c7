"""Words that a reader skipped or said again, heard independently of how clearly the others were said.

A recogniser that may hear any word mistakes unclear words for others, and so says little about skips. Here
pocketsphinx follows the text word by word and may only pass over a word or go back by one, at a price (English).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jiwer
from torch import Tensor

from valle.eval.judges.measure import why_inaudible
from valle.eval.judges.sphinx import SphinxText
from valle.eval.judges.text import normalise_for_scoring

SKIP = BACK = 1e-20
"""Probabilities of passing over a word and of going back."""
SHORT = 3
"""Words of so many letters are slurred by careful readers, too: alone they do not count. See docs/evaluation.md for how
often this judge is right."""


@dataclass(frozen=True)
class Reading:
    """What was skipped and what was said again; `reason` says why that could not be found out."""

    skipped: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    reason: str = ""

    def columns(self) -> dict[str, str | float | None]:
        """For a `valle.eval.results.Row`."""
        known = not self.reason
        return {
            "skipped": len(self.skipped) if known else None,
            "repeated": len(self.repeated) if known else None,
            "skipped_words": " ".join(self.skipped),
            "repeated_words": " ".join(self.repeated),
        }


class ReadingJudge:
    """Call it with a recording and its text."""

    def __init__(self) -> None:
        self._sphinx = SphinxText()

    def __call__(self, wav: Tensor, text: str) -> Reading:
        """Follow `text` in `wav` [S] at 16 kHz."""
        words = normalise_for_scoring(text).split()
        if unknown := self._sphinx.unknown(words):
            return Reading(reason=f"not in the dictionary of pocketsphinx: {', '.join(sorted(set(unknown)))}")
        if why_inaudible(wav) or not (said := self._sphinx.follow(words, wav.numpy(), SKIP, BACK)):
            return Reading(skipped=words)
        return compare(words, said)


def compare(words: list[str], said: list[str]) -> Reading:
    """Words of the text that were not said, and words that were said once more."""
    skipped: list[str] = []
    repeated: list[str] = []
    for chunk in jiwer.process_words(" ".join(words), " ".join(said)).alignments[0]:
        if chunk.type != "equal":
            skipped += counted(words[chunk.ref_start_idx : chunk.ref_end_idx])
            repeated += counted(said[chunk.hyp_start_idx : chunk.hyp_end_idx])
    return Reading(skipped, repeated)


def counted(stretch: list[str]) -> list[str]:
    """The words of a stretch that was skipped or repeated, if they count."""
    return stretch if len(stretch) > 1 or any(len(word) > SHORT for word in stretch) else []
