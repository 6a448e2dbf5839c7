from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch.utils.data import Dataset

from valle.common.errors import UserError
from valle.data.loader import BatchPlan, DurationBuckets, ResumableLoader


class Growing(BatchPlan):
    """Epochs of 3, 4, 5, … requests."""

    fingerprint = "growing"

    def epoch(self, epoch: int) -> list[int]:
        return [100 * epoch + i for i in range(3 + epoch)]


class Halves(Dataset):
    def __getitem__(self, request: int) -> float:
        return request / 2


def take(loader: ResumableLoader, count: int) -> list[float]:
    """The next batches, iterated as a trainer does: epoch by epoch, and not always to the end."""
    taken: list[float] = []
    while len(taken) < count:
        for batch in loader:
            taken.append(batch)
            if len(taken) == count:
                break
    return taken


EXPECTED = [request / 2 for epoch in range(5) for request in Growing().epoch(epoch)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5, 7, 8])
def test_it_goes_on_where_the_state_was_taken(workers: int, stop: int) -> None:
    first = ResumableLoader(Halves(), Growing(), workers)
    assert take(first, stop) == EXPECTED[:stop]
    second = ResumableLoader(Halves(), Growing(), workers)
    second.load_state_dict(first.state_dict())
    assert take(second, 11) == EXPECTED[stop : stop + 11]
    assert take(first, 11) == EXPECTED[stop : stop + 11]


def test_one_iteration_is_as_long_as_it_says() -> None:
    loader = ResumableLoader(Halves(), Growing())
    assert [len(list(loader)) for _ in range(3)] == [len(loader)] * 3 == [3, 3, 3]


def test_loading_a_state_while_running_goes_back() -> None:
    loader = ResumableLoader(Halves(), Growing())
    state = loader.state_dict()
    take(loader, 5)
    loader.load_state_dict(state)
    assert take(loader, 4) == EXPECTED[:4]


def test_the_state_of_other_data_is_refused() -> None:
    loader = ResumableLoader(Halves(), Growing())
    with pytest.raises(UserError, match=r"shrinking.*growing"):
        loader.load_state_dict({"plan": "shrinking", "epoch": 0, "position": 1})


SPEAKERS = [f"speaker-{i % 7}" for i in range(500)] + ["alone"]
FRAMES = np.random.default_rng(0).integers(30, 1000, len(SPEAKERS))
NAMES = np.arange(len(SPEAKERS)) + 10_000  # what the utterances are called in the whole data


def plan(**changes) -> DurationBuckets:
    settings = {"max_frames": 4000, "seed": 1, "swap": 0.0, **changes}
    return DurationBuckets(NAMES, FRAMES, SPEAKERS, **settings)


def test_an_epoch_has_every_utterance_once_in_batches_that_fit() -> None:
    batches = plan().epoch(0)
    assert sorted(u for batch in batches for u, _ in batch) == NAMES.tolist()
    sizes = [(len(b), max(FRAMES[u - 10_000] for u, _ in b)) for b in batches]
    assert max(count * longest for count, longest in sizes) <= 4000
    padded = sum(count * longest for count, longest in sizes)
    assert FRAMES.sum() / padded > 0.9


def test_epochs_differ_in_order_and_in_company_but_are_repeatable() -> None:
    assert plan().epoch(3) == plan().epoch(3)
    first, second = plan().epoch(0), plan().epoch(1)
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}
    longest = [max(FRAMES[u - 10_000] for u, _ in b) for b in first]
    assert longest != sorted(longest)
    assert plan(seed=2).epoch(0) != first


def test_ranks_share_an_epoch_evenly() -> None:
    ranks = [plan(rank=r, world_size=3).epoch(2) for r in range(3)]
    assert len({len(r) for r in ranks}) == 1
    seen = Counter(u for rank in ranks for batch in rank for u, _ in batch)
    assert set(seen.values()) == {1}
    assert len(NAMES) - len(seen) <= 2 * max(len(b) for r in ranks for b in r)
    longest = np.array([[max(FRAMES[u - 10_000] for u, _ in batch) for batch in rank] for rank in ranks])
    assert np.quantile(longest.max(axis=0) / longest.min(axis=0), 0.9) < 1.4


def test_swapped_codes_come_from_another_utterance_of_the_speaker() -> None:
    pairs = [pair for batch in plan(swap=0.4).epoch(0) for pair in batch]
    swapped = [(u, lender) for u, lender in pairs if u != lender]
    assert 0.3 < len(swapped) / len(pairs) < 0.5
    assert all(SPEAKERS[u - 10_000] == SPEAKERS[lender - 10_000] for u, lender in swapped)
    everyone = dict(pair for batch in plan(swap=1.0).epoch(0) for pair in batch)
    assert [u for u, lender in everyone.items() if u == lender] == [NAMES[-1]]  # who has nobody to borrow from
    lenders = Counter(everyone.values())
    assert max(lenders.values()) < 10  # drawn from all of the speaker's utterances


def test_the_fingerprint_tells_other_data_apart() -> None:
    other = DurationBuckets(NAMES, FRAMES[::-1], SPEAKERS, max_frames=4000, seed=1)
    assert len({plan().fingerprint, plan(seed=2).fingerprint, plan(world_size=2).fingerprint, other.fingerprint}) == 4
    assert plan(rank=1, world_size=2).fingerprint == plan(rank=0, world_size=2).fingerprint


@pytest.mark.parametrize("max_frames", [1, 999])
def test_an_utterance_longer_than_a_batch_stands_alone(max_frames: int) -> None:
    batches = plan(max_frames=max_frames).epoch(0)
    assert all(len(b) == 1 for b in batches if max(FRAMES[u - 10_000] for u, _ in b) * 2 > max_frames)
    assert sorted(u for b in batches for u, _ in b) == NAMES.tolist()
