"""A loader that can go on where a stopped run left off, in the middle of an epoch, with any number of workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset

from valle.common.errors import UserError


class BatchPlan(ABC):
    """Which batches there are and in which order: a function of the arguments it was built with, and nothing else.

    `fingerprint` names those arguments; a run is only resumed with an equal one.
    """

    fingerprint: str

    @abstractmethod
    def epoch(self, epoch: int) -> Sequence[Any]:
        """What to ask the dataset for, batch by batch, in epoch 0, 1, 2, …"""


class ResumableLoader:
    """Batches `dataset[request]` for the requests of a plan, epoch after epoch without end.

    One iteration gives as many batches as epoch 0 has (`len`), the next iteration goes on from there. The state
    counts the batches that were handed out, not those that workers made ahead. Lightning stores it in checkpoints
    by itself, since this class has `state_dict` and `load_state_dict`, and leaves the sampling alone, since it is
    no `DataLoader`: a plan for several ranks must do its own sharding.
    """

    def __init__(self, dataset: Dataset, plan: BatchPlan, num_workers: int = 0) -> None:
        self.dataset = dataset
        self.plan = plan
        self.num_workers = num_workers
        self.epoch = 0
        self.position = 0
        # The workers run ahead into the next epoch while this one is still being handed out: hence two.
        self._requests = lru_cache(maxsize=2)(plan.epoch)
        self._stream: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self._requests(0))

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            if self._stream is None:
                requests = _RequestsFrom(self._requests, self.epoch, self.position)
                self._stream = iter(
                    DataLoader(self.dataset, sampler=requests, batch_size=None, num_workers=self.num_workers)
                )
            batch = next(self._stream)
            self.position += 1
            if self.position == len(self._requests(self.epoch)):
                self.epoch, self.position = self.epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"plan": self.plan.fingerprint, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there. Raises `UserError` if the state is that of other data or settings."""
        if state_dict["plan"] != self.plan.fingerprint:
            raise UserError(
                "the checkpoint's run had other training data or data settings than this one, so it cannot be resumed: "
                f"it had {state_dict['plan']}, now {self.plan.fingerprint}; restore them, or start a new run"
            )
        self.epoch, self.position = state_dict["epoch"], state_dict["position"]
        self._stream = None


class _RequestsFrom:
    """The endless stream of requests from a place on; what a `DataLoader` calls a sampler."""

    def __init__(self, requests: Any, epoch: int, position: int) -> None:
        self.requests = requests
        self.epoch = epoch
        self.position = position

    def __iter__(self) -> Iterator[Any]:
        epoch, position = self.epoch, self.position
        while True:
            yield from islice(self.requests(epoch), position, None)
            epoch, position = epoch + 1, 0
