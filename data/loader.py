"""Which utterances go into a batch together, and a loader that goes on where a stopped run left off, in mid-epoch.

Lhotse's DynamicBucketingSampler is made for streams of cuts, from which it fills buckets as they come. Tokenized data
are not cuts and their durations are all known, so a sort does better and shorter: least padding, the same batches for
a (seed, epoch) wherever a run begins, the same number for every rank, and no lhotse on the machines that train.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from valle.common.errors import UserError

Request = list[tuple[int, int]]
"""A batch to be: for each utterance its index, and the index of the one that lends it its time-invariant codes."""

_JITTER = 0.1
"""Durations are shuffled by up to this share before they are sorted, so that batches differ between epochs."""


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


class DurationBuckets(BatchPlan):
    """Batches of utterances of similar duration, at most `max_frames` when padded, in random order.

    `utterances` [N] are indices into the data, `frames` and `speakers` [N] their durations and speakers. For a share
    `swap` of the utterances, the time-invariant codes come from another utterance of the same speaker, as they do in
    cloning, where they come from the prompt. At each step the ranks' batches are of similar duration, so that no rank
    waits long for another. What is left over by the number of ranks is left out of this epoch.
    """

    def __init__(
        self,
        utterances: np.ndarray,
        frames: np.ndarray,
        speakers: Sequence[str],
        max_frames: int,
        seed: int,
        swap: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.utterances = utterances
        self.frames = frames
        self.max_frames = max_frames
        self.seed = seed
        self.swap = swap
        self.rank = rank
        self.world_size = world_size
        _, speaker = np.unique(np.asarray(speakers), return_inverse=True)
        # All utterances of a speaker stand together in `_by_speaker`, at `_place[i] - _first[i] + …` for utterance i.
        self._by_speaker = np.argsort(speaker, kind="stable")
        self._place = np.argsort(self._by_speaker)
        counts = np.bincount(speaker)
        self._count = counts[speaker]
        self._first = (np.cumsum(counts) - counts)[speaker]
        content = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()[:8]
        self.fingerprint = (
            f"{len(utterances)} utterances ({content}), seed {seed}, {max_frames} frames per batch, "
            f"swap {swap:g}, {world_size} ranks"
        )

    def epoch(self, epoch: int) -> list[Request]:
        rng = np.random.default_rng((self.seed, epoch))
        jittered = self.frames * rng.uniform(1 - _JITTER, 1 + _JITTER, len(self.frames))
        batches = list(similar_batches(np.argsort(jittered, kind="stable"), self.frames, self.max_frames))
        lenders = self._lenders(rng)
        whole = len(batches) // self.world_size * self.world_size
        kept = np.sort(rng.permutation(len(batches))[:whole]).reshape(-1, self.world_size)  # a row for each step
        mine = [batches[b] for b in rng.permutation(kept)[:, self.rank]]
        return [[(int(self.utterances[i]), int(self.utterances[lenders[i]])) for i in batch] for batch in mine]

    def _lenders(self, rng: np.random.Generator) -> np.ndarray:
        """For each utterance, the place [N] of the one whose time-invariant codes it gets."""
        others = self._count - 1
        step = 1 + (rng.random(len(others)) * others).astype(np.int64)
        place = self._first + (self._place - self._first + step) % self._count
        swapped = (rng.random(len(others)) < self.swap) & (others > 0)
        return np.where(swapped, self._by_speaker[place], np.arange(len(others)))


def similar_batches(order: np.ndarray, frames: np.ndarray, max_frames: int) -> list[list[int]]:
    """Cut `order` into batches whose padded size (longest x number) is at most `max_frames`, or that hold one."""
    batches: list[list[int]] = []
    longest = 0
    for i in order.tolist():
        longest = max(longest, int(frames[i]))
        if not batches or longest * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
            longest = int(frames[i])
        batches[-1].append(i)
    return batches
