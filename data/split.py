"""Which utterances are held out for validation: decided by hashes, so that it does not depend on order or seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from valle.common.errors import UserError


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def held_out(
    by: Literal["utterance", "speaker"],
    ids: Sequence[str],
    speakers: Sequence[str],
    seconds: Sequence[float] | np.ndarray,
    fraction: float,
) -> np.ndarray:
    """Mask [N], True for validation: single utterances, or all utterances of some speakers."""
    return held_out_utterances(ids, fraction) if by == "utterance" else held_out_speakers(speakers, seconds, fraction)


def held_out_utterances(ids: Sequence[str], fraction: float) -> np.ndarray:
    """Mask [N]: about `fraction` of the utterances. An utterance keeps its side when others join the corpus."""
    return np.array([hash_fraction(i) < fraction for i in ids], dtype=bool)


def held_out_speakers(speakers: Sequence[str], seconds: Sequence[float] | np.ndarray, fraction: float) -> np.ndarray:
    """Mask [N]: all utterances of some speakers, who together hold at most `fraction` of the seconds.

    Speakers are taken in the order of their hashes, skipping those who would exceed it; where nobody fits,
    the speaker with the least speech is taken. Raises `UserError` when there is only one speaker.
    """
    if fraction <= 0:
        return np.zeros(len(speakers), dtype=bool)
    totals: dict[str, float] = defaultdict(float)
    for speaker, duration in zip(speakers, seconds, strict=True):
        totals[speaker] += float(duration)
    if len(totals) < 2:
        raise UserError(
            "the validation split is by speaker, but the data have only one; set val_by: utterance, or val_fraction: 0"
        )
    room = fraction * sum(totals.values())
    chosen = set()
    for speaker in sorted(totals, key=hash_fraction):
        if totals[speaker] <= room:
            chosen.add(speaker)
            room -= totals[speaker]
    chosen = chosen or {min(totals, key=lambda s: (totals[s], s))}
    return np.array([s in chosen for s in speakers], dtype=bool)


ROLES = ("train", "dev", "test")


def roles(
    splits: Sequence[str],
    ids: Sequence[str],
    speakers: Sequence[str],
    seconds: Sequence[float] | np.ndarray,
    dev: float,
    test: float,
) -> tuple[list[str], str]:
    """The role [N] of each utterance, one of `ROLES`, and in a few words how it was decided.

    The corpus decides where it names a split for each utterance (`train-clean-100`, `dev`) and these share no speaker.
    Else whole speakers are held out, at most the shares `dev` and `test` of the seconds; with fewer than three
    speakers, single utterances.
    """
    official = [split.partition("-")[0] for split in splits]
    by_role = {role: {s for s, r in zip(speakers, official, strict=True) if r == role} for role in ROLES}
    disjoint = sum(map(len, by_role.values())) == len(set().union(*by_role.values()))
    if set(official) <= set(ROLES) and disjoint:
        return official, "as the corpus says"
    if len(set(speakers)) < 3:
        fractions = [hash_fraction(i) for i in ids]
        return ["test" if f < test else "dev" if f < test + dev else "train" for f in fractions], "single utterances"
    result = np.full(len(ids), "train", dtype="<U5")
    seconds = np.asarray(seconds, dtype=float)
    for role, share in (("test", test), ("dev", dev)):
        left = np.flatnonzero(result == "train")
        share = share * seconds.sum() / seconds[left].sum()
        held = held_out_speakers([speakers[i] for i in left.tolist()], seconds[left], share)
        result[left[held]] = role
    return result.tolist(), "whole speakers"
