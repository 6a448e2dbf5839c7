"""A listening test as a static page, and its answers back to figures: `make_kit`, `read_ratings`, `score_ratings`.

Listeners see samples in an order of their own, under names that tell nothing, and save their answers as a CSV file.
Which sample was whose stands in the key, which stays with the experimenter. The scales are that of ITU-T P.800 (MOS:
naturalness) and, beside the prompt, likeness of the voice (SMOS).
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from valle.common.errors import UserError
from valle.common.files import check_folder, check_writable
from valle.eval.report.media import load_sound
from valle.eval.report.templates import render
from valle.eval.results import System
from valle.eval.stats import DRAWS, Estimate

REFERENCE = "real recording"
KEY_VERSION = 1
_COLUMNS = ("test", "listener", "sample", "score")


@dataclass(frozen=True)
class Scale:
    """A question and its five answers, from 5 down to 1."""

    question: str
    answers: tuple[str, str, str, str, str]
    beside_prompt: bool


SCALES = {
    "mos": Scale(
        "How natural is this speech?",
        ("Excellent: completely natural", "Good", "Fair", "Poor", "Bad: completely unnatural"),
        beside_prompt=False,
    ),
    "smos": Scale(
        "How alike are the two voices? Judge the voice only, not the sound quality or the words.",
        ("Certainly the same person", "Probably the same", "Not sure", "Probably another", "Certainly another person"),
        beside_prompt=True,
    ),
}


def make_kit(
    systems: Sequence[System],
    folder: Path,
    key: Path,
    scale: str = "mos",
    texts: int = 20,
    seed: int = 0,
    with_reference: bool = True,
) -> int:
    """Write a listening test of `systems` into `folder` and what its samples are into `key`; returns their number.

    texts:          the same texts of every system, drawn at random with `seed`
    with_reference: also the real recordings of these texts, where the list has them
    Raises `UserError` for an unknown scale, for missing sounds, and for a key that listeners would get.
    """
    if scale not in SCALES:
        raise UserError(f"unknown scale '{scale}'; known ones: {', '.join(SCALES)}")
    check_folder(folder)
    check_writable(key, (".json",))
    if folder.resolve() in key.resolve().parents:
        raise UserError(f"the key {key} would be handed out with the test; put it outside of {folder}")
    if texts < 1:
        raise UserError(f"--texts must be 1 or more, got {texts}")
    common = [id_ for id_ in systems[0].rows if all(id_ in system.rows for system in systems)]
    if len(common) < texts:
        raise UserError(f"only {len(common)} texts are in all results, not {texts}; lower --texts")
    chosen = random.Random(seed).sample(common, texts)
    sources = {(system.name, id_): system.audio(id_) for system in systems for id_ in chosen}
    if with_reference:
        real = {(REFERENCE, id_): systems[0].reference(id_) for id_ in chosen}
        sources |= {where: path for where, path in real.items() if path}
    samples, entries = [], {}
    for (system_name, id_), path in sources.items():
        name = _blind_name(seed, system_name, id_)
        prompt_id = systems[0].rows[id_].texts.get("prompt", "")
        prompt = systems[0].prompt(prompt_id) if SCALES[scale].beside_prompt else None
        if SCALES[scale].beside_prompt and prompt is None:
            raise UserError(f"the prompt of {id_} is not in {systems[0].folder}; evaluate again with --out")
        _put(path, folder / "audio" / f"{name}.mp3", f"{system_name}: {id_}")
        sample = {"id": name, "sound": f"audio/{name}.mp3"}
        if prompt:
            voice = _blind_name(seed, "prompt", prompt_id)
            _put(prompt, folder / "audio" / f"{voice}.mp3", f"prompt {prompt_id}")
            sample["prompt"] = f"audio/{voice}.mp3"
        samples.append(sample)
        entries[name] = {"system": system_name, "text": id_}
    # In the order of names that tell nothing: the file itself gives nothing away either.
    samples.sort(key=lambda sample: sample["id"])
    test = hashlib.sha256("".join(entries).encode()).hexdigest()[:8]
    (folder / "index.html").write_text(_page(scale, test, samples), encoding="utf-8")
    content = {"format_version": KEY_VERSION, "test": test, "scale": scale, "seed": seed, "samples": entries}
    key.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(samples)


def _put(source: Path | None, path: Path, what: str) -> None:
    sound = load_sound(source) if source else None
    if sound is None:
        raise UserError(f"there is no sound of {what}; evaluate again with --out")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sound.mp3)


def _blind_name(seed: int, system: str, id_: str) -> str:
    return hashlib.sha256(f"{seed}/{system}/{id_}".encode()).hexdigest()[:10]


def _page(scale: str, test: str, samples: list[dict[str, str]]) -> str:
    data = {"test": test, "scale": scale, "samples": samples}
    return render("listening.html", scale=SCALES[scale], data=data)


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
