from __future__ import annotations

import numpy as np
import pytest

from valle.common.errors import UserError
from valle.data.split import held_out_speakers, held_out_utterances, roles


def test_an_utterance_stays_on_its_side_when_others_join() -> None:
    ids = [f"utterance-{i}" for i in range(2000)]
    mask = held_out_utterances(ids, 0.05)
    assert 60 < mask.sum() < 140
    np.testing.assert_array_equal(held_out_utterances(ids[::-3], 0.05), mask[::-3])


def test_speakers_are_held_out_as_a_whole_and_within_the_share() -> None:
    speakers = ["big"] * 50 + [f"s{i}" for i in range(50)]
    mask = held_out_speakers(speakers, np.ones(100), 0.1)
    assert 0 < mask.sum() <= 10
    assert not mask[:50].any()
    shuffled = np.random.default_rng(0).permutation(100)
    again = held_out_speakers([speakers[i] for i in shuffled], np.ones(100), 0.1)
    np.testing.assert_array_equal(again, mask[shuffled])


def test_where_no_speaker_is_small_enough_the_smallest_is_held_out() -> None:
    mask = held_out_speakers(["a", "b", "b"], [10.0, 2.0, 3.0], 0.01)
    np.testing.assert_array_equal(mask, [False, True, True])


def test_one_speaker_cannot_be_split_by_speaker() -> None:
    with pytest.raises(UserError, match="val_by"):
        held_out_speakers(["a", "a"], [1.0, 1.0], 0.1)
    assert not held_out_speakers(["a", "a"], [1.0, 1.0], 0.0).any()


def test_roles_share_no_speaker() -> None:
    speakers = [f"s{i % 40}" for i in range(400)]
    ids = [str(i) for i in range(400)]
    seconds = [1.0 + i % 7 for i in range(400)]
    found, how = roles([""] * 400, ids, speakers, seconds, dev=0.1, test=0.2)
    by_role = {r: {s for s, x in zip(speakers, found, strict=True) if x == r} for r in ("train", "dev", "test")}
    assert how == "whole speakers"
    assert sum(map(len, by_role.values())) == 40
    shares = {r: sum(t for t, x in zip(seconds, found, strict=True) if x == r) / sum(seconds) for r in by_role}
    assert 0.05 < shares["dev"] <= 0.1 and 0.15 < shares["test"] <= 0.2


def test_roles_of_the_corpus_count_if_they_share_no_speaker() -> None:
    names = ["train-clean-100", "train-other-500", "dev-clean", "test-clean"]
    assert roles(names, list("abcd"), list("wxyz"), [1.0] * 4, 0.1, 0.1)[0] == ["train", "train", "dev", "test"]
    # AISHELL-3's sort of trouble: a speaker in two of its parts.
    assert (
        roles(["train", "test"] * 20, list(map(str, range(40))), list("aabb") * 10, [1.0] * 40, 0.1, 0.1)[1]
        != "as the corpus says"
    )


def test_of_a_single_speaker_utterances_are_held_out() -> None:
    found, how = roles([""] * 200, list(map(str, range(200))), ["me"] * 200, [1.0] * 200, 0.1, 0.1)
    assert how == "single utterances" and 5 < found.count("dev") < 40 and 5 < found.count("test") < 40
