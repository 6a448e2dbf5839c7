from __future__ import annotations

import pytest
from torch.utils.data import Dataset

from valle.common.errors import UserError
from valle.data.loader import BatchPlan, ResumableLoader


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
