"""From judgements to figures: `score_run`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from valle.eval.lists import Recording
from valle.eval.measure import Score
from valle.eval.reading import Reading
from valle.eval.run_folder import RunFolder
from valle.eval.similarity import likeness, voice_spread
from valle.eval.stats import Estimate, estimate
from valle.eval.text import TextScore, cer, score_text, wer
from valle.eval.trials import Trial


@dataclass(frozen=True)
class TTSRow:
    """One judged output."""

    trial: Trial
    seconds: float
    stop_reason: str
    text: TextScore
    sim: Score
    """Likeness to the prompt (SIM-o)."""
    sim_others: Score
    """Mean likeness to the prompts of the other speakers: where it reaches `sim`, the prompt was ignored."""
    sim_resynthesised: Score | None = None
    """Likeness to the prompt as the system's codec gives it back (SIM-r); None for the outputs of another system."""
    sim_reference: Score | None = None
    """Likeness to the speaker really saying the text, where the list has that."""
    naturalness: dict[str, Score] = field(default_factory=dict)
    reading: Reading | None = None


@dataclass(frozen=True)
class TTSReport:
    """What an evaluation found."""

    metrics: dict[str, Estimate]
    """wer, cer, sim, sim_others, sim_resynthesised, sim_reference, predictors of naturalness; `skips`, `repeats`: share
    of the texts with a word skipped or said again, `misread`: with either."""
    context: dict[str, Estimate]
    """The same judges on real recordings: recordings_*; prompts_* (naturalness); same_speaker, different_speakers."""
    rows: list[TTSRow]
    real_time_factor: float = math.nan
    """Seconds of computing per second of speech; NaN for the outputs of another system."""


def score_run(store: RunFolder, trials: Sequence[Trial], recordings: Sequence[Recording], seed: int = 0) -> TTSReport:
    """Score what `store` holds; the same seed gives the same figures.

    An output in which nothing is heard counts as 100 % errors; it has no voice and so no likeness, which `excluded`
    of the estimate tells.
    """
    rows = _rows(store, trials)
    metrics = {
        "wer": wer([row.text for row in rows], seed),
        "cer": cer([row.text for row in rows], seed),
        "sim": estimate([row.sim.value for row in rows], seed=seed),
        "sim_others": estimate([row.sim_others.value for row in rows], seed=seed),
    }
    for name in ("sim_resynthesised", "sim_reference"):
        if scores := [score for row in rows if (score := getattr(row, name))]:
            metrics[name] = estimate([score.value for score in scores], seed=seed)
    metrics |= _naturalness([row.naturalness for row in rows], seed)
    metrics |= _reading([row.reading for row in rows], seed)
    context = _context(store, trials, recordings, seed)
    return TTSReport(metrics, context, rows, _real_time_factor(store, trials, rows))


def _rows(store: RunFolder, trials: Sequence[Trial]) -> list[TTSRow]:
    voices = {id_: store.judgement("prompts", id_).voice for id_ in store.prompts(trials)}
    speakers = {trial.prompt_id: trial.speaker for trial in trials}
    references = {id_: store.judgement("references", id_).voice for id_ in store.references(trials)}
    again = {
        id_: store.judgement("resynthesised", id_).voice for id_ in voices if store.is_judged("resynthesised", id_)
    }
    rows = []
    for trial in trials:
        found = store.judgement("trials", trial.id)
        others = [likeness(found.voice, voice).value for id_, voice in voices.items() if speakers[id_] != trial.speaker]
        known = [value for value in others if value is not None]
        rows.append(
            TTSRow(
                trial=trial,
                seconds=found.seconds,
                stop_reason=store.made(trial.id).stop_reason,
                text=score_text(trial.text, found.heard),
                sim=likeness(found.voice, voices[trial.prompt_id]),
                sim_others=Score(sum(known) / len(known))
                if known
                else Score(None, found.voice.reason or "one speaker"),
                sim_resynthesised=likeness(found.voice, again[trial.prompt_id]) if again else None,
                sim_reference=likeness(found.voice, references[trial.id]) if trial.id in references else None,
                naturalness=found.naturalness,
                reading=found.reading,
            )
        )
    return rows


def _context(
    store: RunFolder, trials: Sequence[Trial], recordings: Sequence[Recording], seed: int
) -> dict[str, Estimate]:
    """The judges on real speech: on `recordings`, or where there are none on the references of the trials."""
    if recordings:
        real = [(store.judgement("recordings", r.id), r.text, r.speaker) for r in recordings]
    else:
        there = store.references(trials)
        real = [(store.judgement("references", t.id), t.text, t.speaker) for t in trials if t.id in there]
    if not real:
        return {}
    found = [judgement for judgement, _, _ in real]
    texts = [score_text(text, judgement.heard) for judgement, text, _ in real]
    spread = voice_spread([judgement.voice for judgement in found], [speaker for *_, speaker in real])
    figures = {"wer": wer(texts, seed), "cer": cer(texts, seed)}
    figures |= _naturalness([judgement.naturalness for judgement in found], seed)
    figures |= _reading([judgement.reading for judgement in found], seed)
    prompts = [store.judgement("prompts", id_) for id_ in store.prompts(trials)]
    return {
        **{f"recordings_{name}": value for name, value in figures.items()},
        **{f"prompts_{name}": value for name, value in _naturalness([p.naturalness for p in prompts], seed).items()},
        "same_speaker": estimate(spread.same_speaker, seed=seed),
        "different_speakers": estimate(spread.different_speakers, seed=seed),
    }


def _naturalness(scores: Sequence[dict[str, Score]], seed: int) -> dict[str, Estimate]:
    names = scores[0] if scores else {}
    return {name: estimate([score[name].value for score in scores], seed=seed) for name in names}


def _reading(readings: Sequence[Reading | None], seed: int) -> dict[str, Estimate]:
    found = [reading for reading in readings if reading]
    if not found:
        return {}
    return {
        "skips": estimate([None if r.reason else float(bool(r.skipped)) for r in found], seed=seed),
        "repeats": estimate([None if r.reason else float(bool(r.repeated)) for r in found], seed=seed),
        "misread": estimate([reading.flawed for reading in found], seed=seed),
    }


def _real_time_factor(store: RunFolder, trials: Sequence[Trial], rows: Sequence[TTSRow]) -> float:
    took = [store.made(trial.id).seconds_to_make for trial in trials]
    known, seconds = [value for value in took if value is not None], sum(row.seconds for row in rows)
    return sum(known) / seconds if known and seconds else math.nan
