"""Embeddings of codes that start where the codec has them.

A codec's codes are points in a space in which near means alike. A table that starts with them need not learn from a
small corpus which codes sound alike; used as the output layer, too, it makes the first logits those of a guess at
the sound. What the points do not say is left to training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.tokenizers.codecs.base import SpeechCodec

STD = 0.02
RANDOM_SHARE = 0.25
"""Of the variance: the codec's points may span few dimensions, and codes must be able to move apart."""


def principal_coordinates(vectors: Tensor, count: int) -> Tensor:
    """`vectors` [n, K, D] of n tables in their first `count` principal coordinates [n, K, count]; zero beyond them."""
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    axes, sizes, _ = torch.linalg.svd(centred.flatten(0, 1).T, full_matrices=False)
    coordinates = (centred @ axes * (sizes > 1e-4 * sizes[0]))[..., :count]
    return F.pad(coordinates, (0, count - coordinates.shape[2]))


@torch.no_grad()
def start_from_codec(tables: Tensor, codec: SpeechCodec) -> None:
    """Overwrite `tables` [n, rows, D] by the codec's first n quantizers. Rows beyond its codes are left as they are.

    Raises `UserError` when the codec does not tell its vectors or has fewer or other codes than the tables.
    """
    vectors = codec.code_vectors()
    if vectors is None:
        raise UserError(f"codec '{codec.spec.name}' does not tell its code vectors; leave out model.codec")
    _start_from(tables, vectors, "quantizers")


@torch.no_grad()
def start_voice_from_codec(tables: Tensor, codec: SpeechCodec) -> None:
    """The same for tables [G, rows, D] of the time-invariant codes, if the codec tells what they stand for."""
    vectors = codec.time_invariant_vectors()
    if vectors is not None:
        _start_from(tables, vectors, "groups of time-invariant codes")


def _start_from(tables: Tensor, vectors: Tensor, what: str) -> None:
    count, rows, dim = tables.shape
    if len(vectors) < count or vectors.shape[1] > rows:
        raise UserError(
            f"the codec has {len(vectors)} {what} of {vectors.shape[1]} codes, the model {count} of {rows}: "
            "model.codec must be the codec that the tokens were made with"
        )
    for table, points in zip(tables, vectors, strict=False):
        points = points - points.mean(0)
        if dim != points.shape[1]:
            # A random projection keeps distances (Johnson and Lindenstrauss).
            points = points @ torch.randn(points.shape[1], dim)
        scale = STD / points.std().clamp_min(1e-8)
        noise = torch.randn(points.shape) * STD * RANDOM_SHARE**0.5
        table[: len(points)] = points * scale * (1 - RANDOM_SHARE) ** 0.5 + noise
