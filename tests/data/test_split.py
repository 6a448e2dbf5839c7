from __future__ import annotations

import numpy as np
import pytest

from valle.data.split import held_out_speakers, held_out_utterances
from valle.tokenizers.errors import UserError


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
