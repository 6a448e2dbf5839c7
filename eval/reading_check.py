"""How often the judge of skips and repeats is right: on recordings as they are, and with a word cut out or doubled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from valle.common.audio import load_audio
from valle.eval.lists import Recording
from valle.eval.reading import SHORT, ReadingJudge
from valle.eval.sphinx import SAMPLE_RATE
from valle.eval.word_times import Word, WordTimer


@dataclass(frozen=True)
class ReadingCheck:
    """Counts over `n` recordings."""

    n: int
    false_skips: int
    false_repeats: int
    found_skips: int
    found_repeats: int

    def __str__(self) -> str:
        return (
            f"{self.n} recordings: as they are, a skipped word is heard in {self.false_skips}, a repeated one in "
            f"{self.false_repeats}; with a word cut out the skip is found in {self.found_skips}, with one doubled "
            f"the repeat in {self.found_repeats}"
        )


def check_reading(recordings: Sequence[Recording], seed: int = 0) -> ReadingCheck:
    """Try the judge on `recordings`; those with words that are not in the dictionary are passed over."""
    judge, timer = ReadingJudge(), WordTimer()
    found = []
    for recording in recordings:
        words = timer(recording) or []
        inner = [word for word in words[1:-1] if len(word.text) > SHORT]
        if not inner:
            continue
        wav = load_audio(recording.path, SAMPLE_RATE)
        word = random.Random(f"{seed}/{recording.id}").choice(inner)
        real = judge(wav, recording.text)
        skipped = judge(_cut(wav, word), recording.text).skipped
        repeated = judge(_doubled(wav, word), recording.text).repeated
        found.append((bool(real.skipped), bool(real.repeated), bool(skipped), bool(repeated)))
    return ReadingCheck(len(found), *(sum(case[i] for case in found) for i in range(4)))


def _cut(wav: Tensor, word: Word) -> Tensor:
    start, end = _samples(word)
    return torch.cat((wav[:start], wav[end:]))


def _doubled(wav: Tensor, word: Word) -> Tensor:
    start, end = _samples(word)
    return torch.cat((wav[:end], wav[start:end], wav[end:]))


def _samples(word: Word) -> tuple[int, int]:
    return round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE)
