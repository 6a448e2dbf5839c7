"""Steps of decoding that are replayed instead of launched again: CUDA graphs, where there are any.

A step is hundreds of kernels of a few microseconds each, and launching them one by one takes longer than they do. A
graph launches all of them at once. It knows addresses and sizes, not tensors: whatever differs from step to step must
stand in tensors that stay where they are, or the graph is another one.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Work = Callable[[], None]
Recorder = Callable[[Work], Work]
"""Records work without doing it; gives what does it, on the same tensors. What one recorder has recorded shares memory
for intermediate results, so it must never run at the same time."""

_warn_once = functools.cache(logging.getLogger(__name__).warning)


class StepGraphs:
    """Does work that only changes tensors in place: what comes again, by replaying it.

    recorders: gives a new recorder; None: there are no graphs, everything is done plainly
    """

    def __init__(self, recorders: Callable[[], Recorder] | None) -> None:
        self.recorders = recorders
        self.replays = 0
        """How often work was done by replaying it."""
        self._tensors: tuple[Tensor, ...] = ()
        self._recorder: Recorder | None = None
        self._recorded: dict[Hashable, Work | None] = {}

    def run(self, key: Hashable, tensors: tuple[Tensor, ...], work: Work) -> None:
        """Do `work`, which is always the same for the same `key` and the same `tensors`, its inputs and results.

        The first time it is done plainly. That loads what cannot be loaded while recording, and does not record what
        never comes again.
        """
        (self._find(key, tensors, work) or work)()

    def _find(self, key: Hashable, tensors: tuple[Tensor, ...], work: Work) -> Work | None:
        """What replays the work; None where it is to be done plainly."""
        # Autocast frees its copies of the weights when it ends; a graph would go on reading them.
        if self.recorders is None or torch.is_autocast_enabled():
            return None
        if len(tensors) != len(self._tensors) or any(a is not b for a, b in zip(tensors, self._tensors, strict=True)):
            self._tensors, self._recorder, self._recorded = tensors, self.recorders(), {}
        if key not in self._recorded:
            self._recorded[key] = None
            return None
        replay = self._recorded[key] or self._record(work)
        if replay is not None:
            self._recorded[key] = replay
            self.replays += 1
        return replay

    def _record(self, work: Work) -> Work | None:
        """None, and no more attempts, where that fails."""
        assert self._recorder is not None
        try:
            return self._recorder(work)
        except RuntimeError as error:
            _warn_once("no CUDA graphs, so speaking takes longer: %s", str(error).partition("\n")[0])
            self.recorders, self._recorder, self._tensors, self._recorded = None, None, (), {}
            return None


def cuda_recorders(device: torch.device) -> Callable[[], Recorder] | None:
    """Recorders of CUDA graphs for `device`; None where it knows none."""
    return functools.partial(_cuda_recorder, device) if device.type == "cuda" else None


def _cuda_recorder(device: torch.device) -> Recorder:
    # A pool cannot be used again after the last graph in it is gone: each recorder has its own.
    stream, pool = _recording_stream(device), torch.cuda.graph_pool_handle()

    def record(work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # The outer `stream` ends with the right stream also where recording fails. "thread_local": other threads may
        # go on allocating memory.
        with (
            torch.cuda.device(device),
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay

    return record


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: cuBLAS keeps a workspace of many megabytes for each stream.
    return torch.cuda.Stream(device)
