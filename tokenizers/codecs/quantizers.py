"""Vector quantizers: one codebook, residual (RVQ) and grouped (GVQ) stacks of them.

Codebooks follow an exponential moving average of the vectors assigned to them (VQ-VAE, appendix A.1);
a code that is hardly used is revived from the current batch, without which most of a codebook dies.
Shapes: N vectors, D channels, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass
class Quantized:
    """vectors: [..., D] with straight-through gradient; codes: LongTensor [..., n]; loss: commitment loss, scalar.

    first: [..., D], what a stack's first quantizer alone gives
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor
    first: Tensor | None = None


class VectorQuantizer(nn.Module):
    """One codebook of `size` codes over vectors of `dim` channels.

    With `code_dim` set it is factorised: vectors are projected to `code_dim` channels and to the unit sphere before
    the look-up, and back after it (Improved VQGAN; DAC, section 3.2).
    """

    codebook: Tensor
    count: Tensor
    total: Tensor

    def __init__(
        self,
        dim: int,
        size: int,
        code_dim: int | None = None,
        decay: float = 0.99,
        revive_below: float = 0.1,
    ) -> None:
        """`revive_below`: a code used less than this share of its fair part is replaced by a vector of the batch."""
        super().__init__()
        self.size = size
        self.decay = decay
        self.revive_below = revive_below
        self.spherical = code_dim is not None
        self.project_in = nn.Linear(dim, code_dim) if code_dim else nn.Identity()
        self.project_out = nn.Linear(code_dim, dim) if code_dim else nn.Identity()
        codebook = torch.randn(size, code_dim or dim)
        self.register_buffer("codebook", F.normalize(codebook, dim=-1) if self.spherical else codebook)
        self.register_buffer("count", torch.zeros(size), persistent=False)
        self.register_buffer("total", torch.zeros_like(self.codebook), persistent=False)

    def forward(self, x: Tensor, update: Tensor | None = None) -> Quantized:
        """Quantize `x` [..., D]; in training, move the codebook towards the vectors where `update` [...] is True."""
        z = self.project_in(x).float()
        if self.spherical:
            z = F.normalize(z, dim=-1)
        codes = self.nearest(z)
        if self.training:
            chosen = slice(None) if update is None else update.reshape(-1)
            self._follow(z.detach().reshape(-1, z.shape[-1])[chosen], codes.reshape(-1)[chosen])
        quantized = F.embedding(codes, self.codebook)
        loss = (z - quantized.detach()).square().sum(-1).mean()
        quantized = z + (quantized - z).detach()
        return Quantized(self.project_out(quantized), codes, loss)

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code for each `z` [..., code_dim]: LongTensor [...]."""
        with torch.autocast(z.device.type, enabled=False):
            distance = self.codebook.square().sum(-1) - 2 * z.float() @ self.codebook.T
        return distance.argmin(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [..., D] of `codes` [...]."""
        return self.project_out(F.embedding(codes, self.codebook))

    @torch.no_grad()
    def _follow(self, z: Tensor, codes: Tensor) -> None:
        """Move the codebook; with several processes, all take part, even one without vectors.

        Not if any vector is not finite: the averages would never forget it. The sums over all processes tell, so that
        all decide alike.
        """
        count = torch.bincount(codes, minlength=self.size).to(z.dtype)
        total = torch.zeros_like(self.codebook).index_add_(0, codes, z)
        _sum(count)
        _sum(total)
        if not count.any() or not total.isfinite().all():
            return
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        fair = self.count.sum() / self.size
        alive = self.count > self.revive_below * fair
        mean = self.total / self.count.clamp_min(1e-8)[:, None]
        self.codebook[alive] = F.normalize(mean[alive], dim=-1) if self.spherical else mean[alive]
        dead = (~alive).nonzero()[:, 0]
        if len(dead):
            # At most as many as there are vectors: the others have their turn with the next batch.
            dead = dead[torch.randperm(len(dead), device=z.device)[: _fewest(z)]]
            source = z[torch.randperm(z.shape[0], device=z.device)[: len(dead)]]
            if _several():
                dist.broadcast(dead, 0)
                dist.broadcast(source, 0)
            self.codebook[dead] = source
            self.count[dead] = fair
            self.total[dead] = source * fair


def _several() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _sum(x: Tensor) -> None:
    """In place, over all processes."""
    if _several():
        dist.all_reduce(x)


def _fewest(z: Tensor) -> int:
    """Rows of `z` in the process that has the fewest."""
    if not _several():
        return z.shape[0]
    rows = torch.tensor(z.shape[0], device=z.device)
    dist.all_reduce(rows, dist.ReduceOp.MIN)
    return int(rows)


def _typed(layers: nn.ModuleList, kind: type[Layer]) -> list[Layer]:
    """The same layers, for the type checker."""
    return [layer for layer in layers if isinstance(layer, kind)]


def _all_codes(layer: VectorQuantizer) -> Tensor:
    return torch.arange(layer.size, device=layer.codebook.device)


class ResidualQuantizer(nn.Module):
    """RVQ: each of `n_q` codebooks quantizes what the ones before it left over (SoundStream, algorithm 1)."""

    def __init__(self, dim: int, n_q: int, size: int, code_dim: int | None = None, decay: float = 0.99) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantizer(dim, size, code_dim, decay) for _ in range(n_q))

    def forward(self, x: Tensor, mask: Tensor | None = None, depth: Tensor | None = None) -> Quantized:
        """Quantize `x` [B, T, D]; codes are [B, T, n_q].

        mask:  [B, T], True for frames that count
        depth: LongTensor [B]: how many quantizers each utterance uses (quantizer dropout); default all
        """
        residual, out, losses, codes, first = x, torch.zeros_like(x), [], [], None
        for i, layer in enumerate(self.layers):
            active = mask
            if depth is not None:
                uses = (i < depth)[:, None].expand(x.shape[:2])
                active = uses if mask is None else uses & mask
            step = layer(residual, active)
            first = step.vectors if first is None else first
            vectors = step.vectors if depth is None else step.vectors * (i < depth)[:, None, None]
            out = out + vectors
            residual = residual - vectors
            losses.append(step.loss)
            codes.append(step.codes)
        return Quantized(out, torch.stack(codes, -1), torch.stack(losses).mean(), first)

    def around(self, x: Tensor, first: Tensor) -> Tensor:
        """Codes [B, T, n_q] of `x` [B, T, D] that begin with `first` [B, T]: the others code what that leaves over."""
        layers = _typed(self.layers, VectorQuantizer)
        residual, codes = x - layers[0].decode(first), [first]
        for layer in layers[1:]:
            codes.append(layer(residual).codes)
            residual = residual - layer.decode(codes[-1])
        return torch.stack(codes, -1)

    def code_vectors(self) -> Tensor:
        """The vector of each code of each quantizer, [n_q, K, D]."""
        return torch.stack([layer.decode(_all_codes(layer)) for layer in _typed(self.layers, VectorQuantizer)])

    def decode(self, codes: Tensor) -> Tensor:
        """Sum of the vectors [B, T, D] of `codes` [B, T, n] with any n up to n_q."""
        parts = [
            layer.decode(column)
            for layer, column in zip(_typed(self.layers, VectorQuantizer), codes.unbind(-1), strict=False)
        ]
        return torch.stack(parts).sum(0)


class GroupedResidualQuantizer(nn.Module):
    """GRVQ: the channels are cut into `groups`, each with an RVQ of its own (HiFi-Codec, section 3.2).

    Codes come layer by layer, and within a layer group by group.
    """

    def __init__(self, dim: int, groups: int, layers: int, size: int, decay: float = 0.99) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"{dim} channels cannot be cut into {groups} groups")
        self.groups = nn.ModuleList(ResidualQuantizer(dim // groups, layers, size, decay=decay) for _ in range(groups))
        self.group_dim = dim // groups

    def forward(self, x: Tensor, mask: Tensor | None = None, depth: Tensor | None = None) -> Quantized:
        """Quantize `x` [B, T, D]; codes are [B, T, layers * groups]. For `mask` and `depth` see `ResidualQuantizer`."""
        n = len(self.groups)
        parts = [
            # Of the first `depth` codes, every n-th belongs to this group.
            rvq(part, mask, None if depth is None else (depth - g + n - 1) // n)
            for g, (rvq, part) in enumerate(zip(self.groups, x.chunk(n, -1), strict=True))
        ]
        return Quantized(
            torch.cat([p.vectors for p in parts], -1),
            torch.stack([p.codes for p in parts], -1).flatten(-2),
            torch.stack([p.loss for p in parts]).mean(),
        )

    def code_vectors(self) -> Tensor:
        """The vector of each code, zero in the channels of the other groups, [n_q, K, D]."""
        n = len(self.groups)
        parts = [
            F.pad(rvq.code_vectors(), (g * self.group_dim, (n - 1 - g) * self.group_dim))
            for g, rvq in enumerate(_typed(self.groups, ResidualQuantizer))
        ]
        return torch.stack(parts, 1).flatten(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, T, D] of the first codes [B, T, n]; a group without any is zero."""
        n = len(self.groups)
        rvqs = _typed(self.groups, ResidualQuantizer)[: codes.shape[-1]]
        parts = [rvq.decode(codes[..., g::n]) for g, rvq in enumerate(rvqs)]
        return F.pad(torch.cat(parts, -1), (0, self.group_dim * (n - len(parts))))


class GroupQuantizer(nn.Module):
    """GVQ: the channels are cut into `groups`, each quantized by a codebook of its own (TiCodec, section 2.2)."""

    def __init__(self, dim: int, groups: int, size: int, decay: float = 0.99) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"{dim} channels cannot be cut into {groups} groups")
        self.layers = nn.ModuleList(VectorQuantizer(dim // groups, size, decay=decay) for _ in range(groups))

    def forward(self, x: Tensor) -> Quantized:
        """Quantize `x` [B, D]; codes are [B, groups]."""
        parts = [layer(part) for layer, part in zip(self.layers, x.chunk(len(self.layers), -1), strict=True)]
        return Quantized(
            torch.cat([p.vectors for p in parts], -1),
            torch.stack([p.codes for p in parts], -1),
            torch.stack([p.loss for p in parts]).mean(),
        )

    def code_vectors(self) -> Tensor:
        """The vector of each code of each group, [groups, K, D / groups]."""
        return torch.stack([layer.decode(_all_codes(layer)) for layer in _typed(self.layers, VectorQuantizer)])

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, D] of `codes` [B, groups]."""
        return torch.cat(
            [layer.decode(codes[:, i]) for i, layer in enumerate(_typed(self.layers, VectorQuantizer))], -1
        )
