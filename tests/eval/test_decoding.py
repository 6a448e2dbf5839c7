"""The checks of the decoding must find what they look for, where it is put in, and nothing where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.eval.decoding import (
    EdgeJudge,
    Edges,
    Finding,
    compare_edges,
    peaks,
    places,
    table,
    voice_change,
    whole_minutes,
)
from valle.eval.judges.similarity import build_speaker_model, embed_all
from valle.eval.protocols import Recording
from valle.eval.stats import estimate
from valle.synthesis.result import SpeechChunk


def test_a_voice_that_becomes_another_is_noticed(speech: Callable[[str], Tensor]) -> None:
    same, other = ["1688-142285-0009", "1688-142285-0003", "1688-142285-0006"], "3331-159605-0005"
    own, first, last, stranger = embed_all(build_speaker_model(), [speech(id_) for id_ in (*same, other)], 16_000)
    stays, goes = voice_change(own, [first, stranger, last]), voice_change(own, [first, last, stranger])
    assert stays is not None and goes is not None
    assert goes < stays - 0.1


@pytest.mark.parametrize("size", [7, 60, 250])
def test_minutes_do_not_depend_on_the_chunks(size: int) -> None:
    rate = 2
    chunks = [SpeechChunk(part, rate) for part in torch.arange(300.0).split(size)]
    minutes = list(whole_minutes(chunks, rate, 2))
    assert torch.equal(torch.cat(minutes), torch.arange(240.0))
    assert [len(wav) for wav in minutes] == [120, 120]
    with pytest.raises(UserError, match="minute 3 of 3"):
        list(whole_minutes(chunks, rate, 3))


def test_a_click_at_the_borders_is_seen_and_a_smooth_join_is_not() -> None:
    rate, hop, borders = 16_000, 320, [6_240, 14_240, 22_240]
    time = torch.arange(32_000) / rate
    smooth = sum((torch.sin(2 * math.pi * f * time) for f in (150, 300, 1200, 2500)), torch.zeros(1)) / 8
    near, far = places(borders, len(smooth), rate, hop)
    assert near == borders
    assert all((place - borders[0]) % hop == 0 for place in far)
    assert min(abs(place - border) for place in far for border in borders) > 2 * hop
    assert len(far) > 60

    def excess(wav: Tensor) -> float:
        at, elsewhere = peaks(wav, near, rate), peaks(wav, far, rate)
        return sum(at) / len(at) - sum(elsewhere) / len(elsewhere)

    assert abs(excess(smooth)) < 0.1
    broken = smooth.clone()
    for border in borders:
        broken[border:] *= -1  # nothing is louder, only the phase jumps
    assert excess(broken) > 3


def test_a_recording_without_room_between_borders_is_left_out() -> None:
    assert places([100, 31_950], 32_000, 16_000, 320) == ([], [])


def test_words_before_the_text_and_missing_ends_are_told_apart() -> None:
    words = ["the", "bread", "is", "still", "warm"]

    def ends(said: str) -> Edges:
        return compare_edges(words, said.split())

    assert ends("the bread is still warm") == Edges([], [], [])
    assert ends("over there the bread is still warm") == Edges(["over", "there"], [], [])
    assert ends("is still warm") == Edges([], ["the", "bread"], [])
    assert ends("bread is still warm") == Edges([], [], [])  # a small word alone, see valle.eval.judges.reading
    assert ends("the bread is still") == Edges([], [], ["warm"])
    assert ends("the bread warm") == Edges([], [], [])
    assert ends("") == Edges([], words, words)


def test_leaks_and_cuts_are_heard_in_real_speech(
    recordings: dict[str, Recording], speech: Callable[[str], Tensor]
) -> None:
    id_ = "3331-159605-0006"  # LET ME SEE HOW CAN I BEGIN
    judge, wav = EdgeJudge(), speech(id_)
    assert judge(wav, recordings[id_].text, "the doctor informs the police") == Edges([], [], [])
    leak = judge(wav, "how can I begin", "let me see")
    assert leak is not None
    assert leak.leaked[-2:] == ["me", "see"]
    cut = judge(wav, "tomorrow let me see how can I begin another")
    assert cut is not None
    assert ("tomorrow" in cut.first, "another" in cut.last) == (True, True)
    assert judge(wav, "Qwertz came.") is None


def test_findings_say_whether_they_are_met() -> None:
    text = table({"long": [Finding("a", estimate([0.1, 0.1]), "below 1", True), Finding("b", 2.0, "0", False)]})
    lines = text.splitlines()
    assert lines[0] == "long"
    assert lines[1].endswith("met") and "0.100" in lines[1]
    assert lines[2].endswith("NOT MET")
    assert Finding("c", math.inf).to_dict()["met"] is None
