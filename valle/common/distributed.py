"""Which part of the work is this process's."""

from __future__ import annotations

from dataclasses import dataclass

from valle.common.errors import UserError


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
