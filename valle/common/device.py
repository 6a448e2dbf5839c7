"""Which device computes, with how many threads of the CPU, none of which waits by spinning; and whose part of the work.

Threads of OpenMP that wait for each other spin, by default: beside any other process on the same cores the one that is
waited for does not run, and each of a step's hundred operations takes a slice of the system's time. So small models
speak on one thread, which costs them little; large ones on the cores that are there, asleep while they wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

from valle.common.errors import UserError

SMALL_PARAMETERS = 20_000_000
"""With fewer, four takes are spoken in real time on one thread of a server's CPU: docs/decoding.md, "Threads"."""


def wait_asleep() -> None:
    """Let threads sleep while they wait, unless the user's environment says otherwise.

    OpenMP reads this when torch is loaded: of no effect later, for this process.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's, as on macOS, look at this first


def find_device(device: str) -> torch.device:
    """`auto` is the best device there is. Raises `UserError` for one that is not there."""
    import torch

    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device '{device}' cannot be used here; try --device cpu") from error


def threads_to_speak(ar: nn.Module) -> int:
    """How many suit this AR model on this machine; one on a GPU, where the CPU only starts kernels."""
    import torch

    parameters = list(ar.parameters())
    if parameters[0].device.type != "cpu" or sum(p.numel() for p in parameters) < SMALL_PARAMETERS:
        return 1
    # torch's own number knows the real cores, `taskset` and OMP_NUM_THREADS, but no container's quota.
    return max(1, int(min(torch.get_num_threads(), cpu_quota())))


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute with so many threads of torch, and then with as many as before."""
    import torch

    before = torch.get_num_threads()
    # Setting it costs more than asking: oneDNN forgets what it has prepared.
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores that the control groups of this process allow (`docker run --cpus`), infinite where none sets a bound."""
    quotas = [float("inf")]
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return quotas[0]  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # Any group above may set a bound. In a container the path is often that outside, of which only the top is seen.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                quotas.append(_quota_v1(folder) if controllers else _quota_v2(folder))
    return min(quotas)


def _quota_v2(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return float("inf")


def _quota_v1(group: Path) -> float:
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else float("inf")
    except (OSError, ValueError):
        return float("inf")


@dataclass(frozen=True)
class Place:
    """One process among those that share a piece of work."""

    part: int = 0
    parts: int = 1
    local_rank: int | None = None
    """Its number on its machine; None where each process may take all of the machine."""

    def device(self, device: str) -> str:
        """`device`, and if that is "cuda", which GPU of the machine is this process's."""
        if device != "cuda" or self.local_rank is None:
            return device
        import torch

        # A launcher may show each process its own GPU alone, which is then number 0.
        return f"cuda:{self.local_rank % max(1, torch.cuda.device_count())}"


def parse_part(text: str) -> Place:
    """`I/N`; or `auto`: rank and size of the cluster that Lightning finds itself in, else the only part.

    Raises `UserError` for anything else.
    """
    if text == "auto":
        return _of_cluster()
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--part must be I/N with 1 <= I <= N, such as 2/8, or 'auto', got '{text}'")
    return Place(int(number) - 1, int(count))


def _of_cluster() -> Place:
    # Of torchrun, SLURM, LSF and MPI, Lightning knows which environment variables say who is who.
    from lightning.fabric.plugins import environments as known

    kinds = (known.TorchElasticEnvironment, known.SLURMEnvironment, known.LSFEnvironment, known.MPIEnvironment)
    for kind in kinds:
        if kind.detect():
            cluster = kind()
            return Place(cluster.global_rank(), cluster.world_size(), cluster.local_rank())
    return Place()
