from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from valle.eval.judges.reading import Reading, ReadingJudge, compare
from valle.eval.judges.sphinx import SphinxText
from valle.eval.judges.text import normalise_for_scoring
from valle.eval.protocols import SENTENCES, SENTENCES_100, Recording, WordTimer, read_sentences

ID = "3331-159605-0006"  # LET ME SEE HOW CAN I BEGIN


@pytest.fixture(scope="module")
def judge() -> ReadingJudge:
    return ReadingJudge()


def test_skips_and_repeats_in_real_speech(
    judge: ReadingJudge, recordings: dict[str, Recording], speech: Callable[[str], Tensor]
) -> None:
    recording, wav = recordings[ID], speech(ID)
    words = {word.text: word for word in WordTimer()(recording) or []}
    begin, let = words["BEGIN"], words["LET"]
    assert judge(wav, recording.text) == Reading()
    without = wav[: round(begin.start * 16_000)]
    assert "begin" in judge(without, recording.text).skipped
    start, end = round(let.start * 16_000), round(words["SEE"].end * 16_000)
    again = torch.cat((wav[:end], wav[start:end], wav[end:]))
    said = judge(again, recording.text)
    assert "see" in said.repeated


def test_silence_skips_everything_and_unknown_words_are_no_flaw(judge: ReadingJudge) -> None:
    assert judge(torch.zeros(16_000), "Nobody came.").skipped == ["nobody", "came"]
    unknown = judge(torch.zeros(16_000), "Qwertz came.")
    assert "qwertz" in unknown.reason
    assert unknown.columns()["skipped"] is unknown.columns()["repeated"] is None


def test_a_slurred_small_word_alone_does_not_count() -> None:
    def read(said: str) -> Reading:
        text = "he gave the dog to a friend"
        return compare(text.split(), said.split())

    assert read("he gave the dog to a friend") == Reading()
    assert read("he gave dog to a friend") == Reading()
    assert read("he gave the dog to a a friend") == Reading()
    assert read("he the dog to a friend").skipped == ["gave"]
    assert read("he gave the dog friend").skipped == ["to", "a"]
    assert read("he gave he gave the dog to a friend").repeated == ["he", "gave"]


def test_the_shipped_sentences_can_be_followed() -> None:
    sentences = read_sentences(SENTENCES) + read_sentences(SENTENCES_100)
    words = {word for sentence in sentences for word in normalise_for_scoring(sentence).split()}
    assert SphinxText().unknown(sorted(words)) == []
