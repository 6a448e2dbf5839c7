from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from valle.data.batch import LMBatch, collate
from valle.data.shards import TokenizedUtterance


def utterance(phonemes: int, frames: int, aligned: bool = True) -> TokenizedUtterance:
    """An utterance of non-zero tokens, the last phoneme long."""
    durations = torch.ones(phonemes, dtype=torch.long)
    durations[-1] = frames - phonemes + 1
    return TokenizedUtterance(
        id=f"{phonemes}-{frames}",
        speaker="s",
        text="t",
        phonemes=torch.arange(phonemes) + 2,
        codes=torch.arange(2 * frames).reshape(2, frames) + 1,
        time_invariant=torch.tensor([frames, phonemes, 7]),
        durations=durations if aligned else None,
    )


def test_collate_pads_and_loses_nothing() -> None:
    utterances = [utterance(3, 10), utterance(5, 6), utterance(4, 12)]
    batch = collate(utterances)
    assert batch.phonemes.shape == (3, 5) and batch.codes.shape == (3, 2, 12) and len(batch) == 3
    for row, u in enumerate(utterances):
        length, frames = int(batch.phoneme_lengths[row]), int(batch.code_lengths[row])
        torch.testing.assert_close(batch.phonemes[row, :length], u.phonemes)
        torch.testing.assert_close(batch.codes[row, :, :frames], u.codes)
        assert not batch.phonemes[row, length:].any() and not batch.codes[row, :, frames:].any()
    assert batch.time_invariant is not None and batch.time_invariant.tolist() == [[10, 3, 7], [6, 5, 7], [12, 4, 7]]
    assert batch.durations is not None and batch.durations.sum(dim=1).tolist() == [10, 6, 12]


def test_unaligned_utterances_make_a_batch_without_durations() -> None:
    assert collate([utterance(3, 10, aligned=False)]).durations is None
    with pytest.raises(ValueError, match="1 of 2 utterances have durations"):
        collate([utterance(3, 10), utterance(3, 10, aligned=False)])


def test_a_batch_moves_to_a_device_whole() -> None:
    batch = collate([utterance(3, 10, aligned=False)])
    moved = batch.to("meta")
    assert {t.device.type for t in (moved.codes, moved.phonemes, moved.time_invariant) if t is not None} == {"meta"}
    assert moved.durations is None


GOOD = collate([utterance(3, 10), utterance(5, 6)])
assert GOOD.durations is not None and GOOD.time_invariant is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phonemes": GOOD.phonemes.int()}, "phonemes must be a LongTensor"),
        ({"codes": GOOD.codes[:1]}, r"codes must be \[B, n_q, T\] with B = 2"),
        ({"codes": GOOD.codes[:, 0]}, r"codes must be \[B, n_q, T\]"),
        ({"phoneme_lengths": torch.tensor([3, 6])}, r"phoneme_lengths must be in 1\.\.5"),
        ({"code_lengths": torch.tensor([10, 0])}, r"code_lengths must be in 1\.\.10"),
        ({"phoneme_lengths": torch.tensor([3, 4])}, "phonemes must be 0 beyond"),
        ({"code_lengths": torch.tensor([9, 6])}, "codes must be 0 beyond"),
        ({"durations": GOOD.durations + 1}, "durations must sum"),
        ({"durations": GOOD.durations[:, :4]}, r"durations must be \[B, L\]"),
        ({"time_invariant": GOOD.time_invariant[0]}, r"time_invariant must be \[B, G\]"),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


def test_the_good_batch_is_good() -> None:
    assert isinstance(replace(GOOD), LMBatch)
