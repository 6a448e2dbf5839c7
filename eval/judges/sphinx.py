"""PocketSphinx, also in worker processes, which import this module: it is free of torch, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000
_FRAME_SECONDS = 0.01
_FILLERS = "<[+"
"""First characters of what stands for silence and noise in its results."""

_decoder: Any = None


def transcribe_all(wavs: list[np.ndarray], jobs: int = 1) -> Iterator[str]:
    """Transcripts of `wavs` (float32 [S], 16 kHz, in [-1, 1]), in order, with `jobs` processes.

    The decoder holds Python's lock while it searches, so threads would not help.
    """
    if jobs == 1 or len(wavs) == 1:
        _load()
        yield from map(_transcribe, wavs)
        return
    # A fork would copy the locks of torch's threads in whatever state they are.
    with ProcessPoolExecutor(min(jobs, len(wavs)), mp_context=get_context("spawn"), initializer=_load) as pool:
        yield from pool.map(_transcribe, wavs)


class SphinxText:
    """PocketSphinx told beforehand what is said: its dictionary, forced alignment, and reading along with skips."""

    def __init__(self) -> None:
        self._decoder = _new_decoder()

    def unknown(self, words: Sequence[str]) -> list[str]:
        """Those of `words` (lower case) that the dictionary does not have."""
        return [word for word in words if self._decoder.lookup_word(word) is None]

    def align(self, words: Sequence[str], wav: np.ndarray) -> list[tuple[float, float]]:
        """Start and end in seconds of each of `words` in `wav` (float32 [S], 16 kHz); [] where they do not fit."""
        self._decoder.set_align_text(" ".join(words))
        _decode(self._decoder, wav)
        segments = [s for s in self._decoder.seg() or [] if s.word[0] not in _FILLERS]
        return [(s.start_frame * _FRAME_SECONDS, (s.end_frame + 1) * _FRAME_SECONDS) for s in segments]

    def follow(
        self, words: Sequence[str], wav: np.ndarray, skip: float, back: float, before: Sequence[str] = ()
    ) -> list[str]:
        """The likeliest way in which `wav` reads `words`, where any may be skipped and said again.

        skip:   probability of passing over a word
        back:   probability of going back by a word
        before: words that may come first, from any of them on, with probability `back`
        """
        steps: list[tuple[Any, ...]] = []
        for i, word in enumerate(words):
            steps += [(i, i + 1, 1.0, word), (i, i + 1, skip), (i + 1, i, back)]
        first = len(words) + 1
        start = first + len(before)
        steps.append((start, 0, 1.0))
        for i, word in enumerate(before, start=first):
            steps += [(start, i, back), (i, i + 1 if i + 1 < start else 0, 1.0, word)]
        name = "follow"
        self._decoder.add_fsg(name, self._decoder.create_fsg(name, start, len(words), steps))
        self._decoder.activate_search(name)
        _decode(self._decoder, wav)
        return [s.word.split("(")[0] for s in self._decoder.seg() or [] if s.word[0] not in _FILLERS]


def _new_decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")


def _load() -> None:
    global _decoder
    if _decoder is None:
        _decoder = _new_decoder()


def _transcribe(wav: np.ndarray) -> str:
    _decode(_decoder, wav)
    best = _decoder.hyp()
    return best.hypstr if best else ""


def _decode(decoder: Any, wav: np.ndarray) -> None:
    # The feature extraction remembers the end of the last utterance; without this a transcript depends on the order.
    decoder.reinit_feat()
    decoder.start_utt()
    pcm = (np.clip(wav, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
