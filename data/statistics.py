"""What a prepared corpus holds, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valle.common.tables import plain_table
from valle.data.split import ROLES

_BINS = 60


@dataclass(frozen=True)
class Kept:
    """One utterance of a prepared corpus."""

    id: str
    speaker: str
    seconds: float
    gender: str = ""
    split: str = ""


def statistics_table(kept: Sequence[Kept], roles: Sequence[str]) -> str:
    """Utterances, hours, speakers and durations of each split, as text for a terminal."""
    header = ["split", "utterances", "hours", "speakers", "f / m", "shortest", "median", "longest"]
    rows = [header]
    for role in (*ROLES, "all"):
        some = [k for k, r in zip(kept, roles, strict=True) if role in (r, "all")]
        if not some:
            continue
        seconds = np.array([k.seconds for k in some])
        genders = {k.speaker: k.gender for k in some}
        counts = [sum(g == letter for g in genders.values()) for letter in "fm"]
        durations = [f"{value:.1f} s" for value in (seconds.min(), np.median(seconds), seconds.max())]
        hours = f"{seconds.sum() / 3600:.2f}"
        rows.append([role, f"{len(some):,}", hours, f"{len(genders):,}", f"{counts[0]} / {counts[1]}", *durations])
    return plain_table(rows, ">")


def plot_durations(path: Path, kept: Sequence[Kept], roles: Sequence[str]) -> None:
    """Write a PNG: a histogram of the durations by split, and of the hours of the speakers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    durations, speakers = figure.subplots(1, 2)
    seconds = [[k.seconds for k, r in zip(kept, roles, strict=True) if r == role] for role in ROLES]
    durations.hist(seconds, bins=_BINS, stacked=True, label=ROLES)
    durations.set(xlabel="seconds of an utterance", ylabel="utterances")
    durations.legend()
    minutes: dict[str, float] = {}
    for k in kept:
        minutes[k.speaker] = minutes.get(k.speaker, 0.0) + k.seconds / 60
    speakers.hist(list(minutes.values()), bins=min(_BINS, max(10, len(minutes) // 4)), color="tab:gray")
    speakers.set(xlabel="minutes of a speaker", ylabel="speakers")
    figure.savefig(path)
