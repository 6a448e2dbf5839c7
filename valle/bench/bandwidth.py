"""How fast this machine reads memory, as torch sees it: the limit of decoding at small batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

MIN_SECONDS = 0.5
CUDA_BYTES = 2**30
"""At least, so that launching a kernel and waiting for it hardly count."""


def read_bandwidth(size: int, device: torch.device) -> float:
    """Bytes per second when `size` bytes are read over and over (from a cache, if they fit into one).

    The better of two ways of reading, in its median, as steps are given in theirs: the sum of a vector, and the product
    of a matrix and a vector.
    """
    if device.type == "cuda":
        size = max(size, CUDA_BYTES)
    rows = max(1, size // (4 * 1024))
    matrix, vector = torch.ones(rows, 1024, device=device), torch.ones(1024, device=device)
    ways = (lambda: matrix.sum(), lambda: matrix.mv(vector))
    return matrix.numel() * 4 / min(statistics.median(timings(work, device, MIN_SECONDS)) for work in ways)


def timings(work: Callable[[], object], device: torch.device, min_seconds: float = 0.0) -> list[float]:
    """Seconds of each run of `work`: as many as fit into `min_seconds`, at least 3, after one that is not counted."""
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 4 or time.perf_counter() - began < min_seconds:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken[1:]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
