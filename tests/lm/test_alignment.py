from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from valle.common.errors import UserError
from valle.lm.alignment import IGNORE, advance_targets, check_durations, frame_pointers, legal_advances


def naive(durations: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Pointers, frames spent and advances, written as a person would count them."""
    pointers, frames_in_token = [], []
    for token, frames in enumerate(durations):
        for frame in range(frames):
            pointers.append(token)
            frames_in_token.append(frame)
    path = [-1, *pointers, len(durations)]
    return pointers, frames_in_token, [b - a for a, b in pairwise(path)]


def test_pointers_equal_counting(make_batch):
    batch = make_batch((9, 7, 11, 5, 12, 3))
    pointers, frames_in_token = frame_pointers(batch.durations, batch.codes.shape[2])
    advances = advance_targets(pointers, batch.phoneme_lengths, batch.code_lengths)
    assert (batch.durations == 0).any()
    for row, (length, frames) in enumerate(
        zip(batch.phoneme_lengths.tolist(), batch.code_lengths.tolist(), strict=True)
    ):
        want = naive(batch.durations[row, :length].tolist())
        assert pointers[row, :frames].tolist() == want[0]
        assert frames_in_token[row, :frames].tolist() == want[1]
        assert advances[row, : frames + 1].tolist() == want[2]
        assert (advances[row, frames + 1 :] == IGNORE).all()


@pytest.mark.parametrize("max_advance", [1, 2, 3])
def test_legal_advances_equal_their_definition(make_batch, max_advance):
    batch = make_batch()
    boundary = torch.isin(batch.phonemes, torch.tensor([2, 3]))
    legal = legal_advances(boundary, batch.phoneme_lengths, max_advance)
    for row, length in enumerate(batch.phoneme_lengths.tolist()):
        for pointer in range(-1, length):
            for advance in range(max_advance + 1):
                skipped = range(pointer + 1, pointer + advance)
                want = all(token < length and bool(boundary[row, token]) for token in skipped)
                want = want and (advance > 0 or pointer >= 0)
                assert bool(legal[row, pointer + 1, advance]) == want, (row, pointer, advance)


@pytest.mark.parametrize(
    ("durations", "good"), [([0, 3, 0, 2, 1], True), ([1, 0, 0, 2, 1], False), ([0, 2, 1, 0, 0], False)]
)
def test_unspeakable_durations_are_refused(durations, good):
    boundary = torch.tensor([[True, False, True, False, True]])
    arguments = torch.tensor([durations]), boundary, torch.tensor([5]), torch.tensor([sum(durations)]), 2
    if good:
        check_durations(*arguments)
    else:
        with pytest.raises(UserError, match="durations"):
            check_durations(*arguments)
