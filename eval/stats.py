"""Means and rates with bootstrap intervals.

The utterance is the unit that is drawn again, so an interval says how much the figure would move with other
utterances of the same speakers; it does not cover the choice of the speakers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

DRAWS = 5_000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN where there are too few utterances for it."""

    value: float
    low: float
    high: float
    n: int
    """Utterances measured."""
    excluded: int = 0
    """Utterances that have no score, whose reasons stand in the rows."""

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON, which knows no NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        interval = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        of = f" ({self.n} of {self.n + self.excluded})" if self.excluded else ""
        return f"{self.value:.3f}{interval}{of}"


def estimate(values: Sequence[float | None], weights: Sequence[float] | None = None, seed: int = 0) -> Estimate:
    """`sum(values) / sum(weights)` with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Without `weights` this is the mean. With errors as values and reference lengths as weights it is the error rate
    of the corpus, which is what WER and CER mean. None marks an utterance without a score: left out and counted.
    """
    if weights is None:
        weights = [1.0] * len(values)
    if len(values) != len(weights):
        raise ValueError(f"{len(values)} values but {len(weights)} weights")
    measured = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None]
    n, excluded = len(measured), len(values) - len(measured)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, excluded)
    pairs = np.array(measured, dtype=np.float64)
    value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1, excluded)
    drawn = pairs[np.random.default_rng(seed).integers(0, n, size=(DRAWS, n))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n, excluded)


def estimate_difference(
    a: Sequence[float | None], b: Sequence[float | None], weights: Sequence[float] | None = None, seed: int = 0
) -> Estimate:
    """`estimate` of a - b for two systems on the same utterances, paired utterance by utterance.

    Far sharper than comparing two intervals: a hard sentence is hard for both. An interval without 0 is a difference.
    """
    if len(a) != len(b):
        raise ValueError(f"paired systems need the same utterances, got {len(a)} and {len(b)}")
    differences = [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]
    return estimate(differences, weights, seed)
