"""PocketSphinx in worker processes, which import this module: it is kept free of torch, whose import costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000

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


def _load() -> None:
    global _decoder
    if _decoder is None:
        from pocketsphinx import Decoder

        _decoder = Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")


def _transcribe(wav: np.ndarray) -> str:
    # The feature extraction remembers the end of the last utterance; without this a transcript depends on the order.
    _decoder.reinit_feat()
    _decoder.start_utt()
    pcm = (np.clip(wav, -1, 1) * 32767).astype(np.int16).tobytes()
    _decoder.process_raw(pcm, no_search=False, full_utt=True)
    _decoder.end_utt()
    best = _decoder.hyp()
    return best.hypstr if best else ""
