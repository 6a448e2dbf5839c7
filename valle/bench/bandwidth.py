"""How fast this machine reads memory, as torch sees it: the limit of decoding at small batches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

MIN_SECONDS = 0.2
CUDA_BYTES = 2**30
"""At least, so that launching a kernel and waiting for it hardly count."""


def read_bandwidth(size: int, device: torch.device) -> float:
    """Bytes per second when `size` bytes are read over and over (from a cache, if they fit into one).

    The best of two ways of reading: the sum of a vector, and the product of a matrix and a vector.
    """
    if device.type == "cuda":
        size = max(size, CUDA_BYTES)
    rows = max(1, size // (4 * 1024))
    matrix, vector = torch.ones(rows, 1024, device=device), torch.ones(1024, device=device)
    fastest = min(best_time(lambda: matrix.sum(), device), best_time(lambda: matrix.mv(vector), device))
    return matrix.numel() * 4 / fastest


def best_time(work: Callable[[], object], device: torch.device, min_seconds: float = MIN_SECONDS) -> float:
    """Seconds that `work` takes at best, of as many runs as fit into `min_seconds` (at least 3, the first not counted).

    The best and not the mean: other processes can only make it slower.
    """
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - began < min_seconds:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
