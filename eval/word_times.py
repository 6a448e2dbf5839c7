"""When each word of a transcribed recording is said, by forced alignment with pocketsphinx (English)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valle.common.audio import load_audio
from valle.eval.lists import Recording
from valle.eval.sphinx import SAMPLE_RATE, SphinxText


@dataclass(frozen=True)
class Word:
    """A word as transcribed, and where it lies, in seconds."""

    text: str
    start: float
    end: float


class WordTimer:
    """Call it with a recording: its words, or None where one is not in the dictionary or nothing fits."""

    def __init__(self) -> None:
        self._sphinx = SphinxText()

    def __call__(self, recording: Recording) -> list[Word] | None:
        text = recording.text.split()
        words = [spelling(word) for word in text]
        if not all(words) or self._sphinx.unknown(words):
            return None
        wav: np.ndarray = load_audio(recording.path, SAMPLE_RATE).numpy()
        found = self._sphinx.align(words, wav)
        if len(found) != len(text):
            return None
        return [Word(word, start, end) for word, (start, end) in zip(text, found, strict=True)]


def spelling(word: str) -> str:
    """A word of a transcript as the dictionary spells it; "" if nothing is left."""
    return "".join(c for c in word.lower().replace("’", "'") if c.isalpha() or c == "'").strip("'")
