"""Answers of a listening test back to figures: `read_ratings`, `score_ratings`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from valle.common.errors import UserError
from valle.eval.stats import DRAWS, Estimate

_COLUMNS = ("test", "listener", "sample", "score")


@dataclass(frozen=True)
class Rating:
    """One listener's answer to one sample."""

    listener: str
    system: str
    text: str
    score: int


@dataclass(frozen=True)
class SystemRating:
    """A system's mean opinion score."""

    system: str
    mean: Estimate
    """Interval: listeners and texts both drawn again, since another test would have others of both."""
    half_width: float
    """Of the interval that papers give, `mean ± t s / sqrt(n)`, which takes all answers for independent."""
    listeners: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        half = None if math.isnan(self.half_width) else self.half_width
        return {"system": self.system, **self.mean.to_dict(), "half_width": half, "listeners": self.listeners}


def read_ratings(files: Sequence[Path], key: Path) -> list[Rating]:
    """The answers in the CSV files that listeners saved. Raises `UserError` for a file of another test."""
    try:
        content = json.loads(key.read_text(encoding="utf-8"))
        test, samples = content["test"], content["samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{key} is not the key of a listening test ({error})") from error
    ratings: dict[tuple[str, str], Rating] = {}
    for path in files:
        for number, row in enumerate(_rows(path), start=2):
            where = f"{path}, line {number}"
            if row["test"] != test or row["sample"] not in samples:
                raise UserError(f"{where}: this answer is of another test than {key}")
            if row["score"] not in {"1", "2", "3", "4", "5"}:
                raise UserError(f"{where}: the score must be 1 to 5, got '{row['score']}'")
            sample = samples[row["sample"]]
            answer = Rating(row["listener"], sample["system"], sample["text"], int(row["score"]))
            if ratings.setdefault((row["listener"], row["sample"]), answer) != answer:
                raise UserError(f"{where}: '{row['listener']}' answered this sample before, otherwise; keep one file")
    if not ratings:
        raise UserError("there are no answers in these files")
    return list(ratings.values())


def score_ratings(ratings: Sequence[Rating], seed: int = 0) -> list[SystemRating]:
    """Each system's mean with intervals, best first."""
    systems = dict.fromkeys(rating.system for rating in ratings)
    found = [_score(system, [r for r in ratings if r.system == system], seed) for system in systems]
    return sorted(found, key=lambda rating: -rating.mean.value)


def _score(system: str, ratings: Sequence[Rating], seed: int) -> SystemRating:
    scores = np.array([rating.score for rating in ratings], dtype=np.float64)
    n, mean = len(scores), float(scores.mean())
    listeners, who = np.unique([rating.listener for rating in ratings], return_inverse=True)
    texts, what = np.unique([rating.text for rating in ratings], return_inverse=True)
    low = high = half = math.nan
    if n > 1:
        half = float(student_t.ppf(0.975, n - 1) * scores.std(ddof=1)) / math.sqrt(n)
        # The crossed ("pigeonhole") bootstrap of Owen, 2007: an answer counts as often as listener and text are drawn.
        rng = np.random.default_rng(seed)
        weights = _drawn(rng, len(listeners))[:, who] * _drawn(rng, len(texts))[:, what]
        totals = weights.sum(axis=1)
        means = (weights @ scores)[totals > 0] / totals[totals > 0]
        low, high = (float(x) for x in np.percentile(means, [2.5, 97.5]))
    return SystemRating(system, Estimate(mean, low, high, n), half, len(listeners))


def _drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """[DRAWS, n]: how often each of n is drawn in n draws."""
    return rng.multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or [])]:
                raise UserError(f"{path} has no column '{missing[0]}'; give files that the listening test saved")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
