"""The folder of a TTS evaluation: what was said, by whom, what the judges made of it, and the figures: `score_run`.

run.json                what the results depend on; a folder holds one evaluation
prompts/ID.*            the voices
resynthesised/ID.wav    the voices as the system's codec gives them back
references/ID.*         the speakers really saying the texts, where a list has them
wavs/ID.wav             outputs
made/ID.json            how an output came about
judged/KIND/ID.json     judgements of trials, prompts and recordings
results.json            figures and what they were made with; the same for the same seed, whoever ran it
utterances.tsv          a row for each text
timing.json             what differs from run to run: speed, machine
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from valle.common.audio import find_audio, save_audio
from valle.common.errors import UserError
from valle.common.files import whole
from valle.eval.judges.judging import Judgement
from valle.eval.judges.similarity import likeness, voice_spread
from valle.eval.protocols import Recording, Trial
from valle.eval.results import Row, number, results_head, summarise, write_json, write_results
from valle.eval.stats import Estimate, estimate

FORMAT_VERSION = 1
NORMALISATION = "numbers and symbols spelled out, lower case, no punctuation but apostrophes within words"


@dataclass(frozen=True)
class Made:
    """How an output came about."""

    stop_reason: str = ""
    seconds_to_make: float | None = None
    """None for the outputs of another system."""


class RunFolder:
    """Reads and writes the folder of a TTS evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, trials: Sequence[Trial], recordings: Sequence[Recording], identity: Mapping[str, Any]) -> None:
        """Lay out prompts and references, or make sure that the folder is this evaluation's, begun before.

        Raises `UserError` naming what is different.
        """
        run = {
            "format_version": FORMAT_VERSION,
            "trials": _hash([(t.id, t.text, t.speaker, t.prompt_id, t.prompt_text) for t in trials]),
            "recordings": _hash([(r.id, r.speaker, r.text) for r in recordings]),
            **identity,
        }
        path = self.folder / "run.json"
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if other := [name for name in run if before.get(name) != run[name]]:
                raise UserError(
                    f"{self.folder} holds an evaluation with other {other[0]}; choose another --out or remove it"
                )
        for id_, trial in {t.prompt_id: t for t in trials}.items():
            if self._find("prompts", id_) is None:
                trial.prompt.save(self.folder / "prompts", id_)
        for trial in trials:
            if trial.reference and self._find("references", trial.id) is None:
                trial.reference.save(self.folder / "references", trial.id)
        _write(path, run)

    def prompts(self, trials: Sequence[Trial]) -> dict[str, Path]:
        """The prompts of `trials` in the folder, by id, in order."""
        found = {id_: self._find("prompts", id_) for id_ in dict.fromkeys(t.prompt_id for t in trials)}
        return {id_: path for id_, path in found.items() if path}

    def references(self, trials: Sequence[Trial]) -> dict[str, Path]:
        """The references of `trials` that have one, by trial id."""
        found = {trial.id: self._find("references", trial.id) for trial in trials if trial.reference}
        return {id_: path for id_, path in found.items() if path}

    def take_outputs(self, wavs: Path, trials: Sequence[Trial]) -> None:
        """Copy another system's outputs in."""
        for trial in trials:
            if not self.is_made(trial.id):
                source = find_output(wavs, trial.id)
                (self.folder / "wavs").mkdir(exist_ok=True)
                shutil.copyfile(source, self.folder / "wavs" / f"{trial.id}{source.suffix}")
                _write(self.folder / "made" / f"{trial.id}.json", asdict(Made()))

    def resynthesised(self, trials: Sequence[Trial]) -> dict[str, Path]:
        """Where the prompts of `trials` are to be, as the system's codec gives them back; by id, in order."""
        return {id_: self.folder / "resynthesised" / f"{id_}.wav" for id_ in self.prompts(trials)}

    def keep_output(self, id_: str, wav: Tensor, sample_rate: int, made: Made) -> None:
        """Write an output [S]; it counts as made once `made` is there."""
        save_audio(self.folder / "wavs" / f"{id_}.wav", wav.flatten(), sample_rate)
        _write(self.folder / "made" / f"{id_}.json", asdict(made))

    def is_made(self, id_: str) -> bool:
        """Whether the output is there, whole."""
        return (self.folder / "made" / f"{id_}.json").exists()

    def made(self, id_: str) -> Made:
        """How it came about."""
        return Made(**_read(self.folder / "made" / f"{id_}.json"))

    def output(self, id_: str) -> Path:
        """Where it is."""
        return find_output(self.folder / "wavs", id_)

    def keep(self, kind: str, id_: str, judgement: Judgement) -> None:
        """Write a judgement of one of the trials, prompts or recordings."""
        _write(self.folder / "judged" / kind / f"{id_}.json", judgement.to_dict())

    def is_judged(self, kind: str, id_: str) -> bool:
        """Whether it is there."""
        return (self.folder / "judged" / kind / f"{id_}.json").exists()

    def judgement(self, kind: str, id_: str) -> Judgement:
        """Read one back."""
        return Judgement.from_dict(_read(self.folder / "judged" / kind / f"{id_}.json"))

    def _find(self, what: str, id_: str) -> Path | None:
        return find_audio(self.folder / what, id_)


def find_output(folder: Path, id_: str) -> Path:
    """`<folder>/<id>.wav`, or with another suffix of audio files. Raises `UserError` where there is none."""
    if path := find_audio(folder, id_):
        return path
    raise UserError(
        f"output {folder / id_}.wav is missing; 'valle eval jobs --out DIR' writes down what must be said, by whom"
    )


def _hash(rows: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with whole(path) as part:  # a killed run leaves nothing that looks done
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class TTSReport:
    """What an evaluation found."""

    metrics: dict[str, Estimate]
    """wer, cer; sim: likeness to the prompt (SIM-o); sim_others: mean likeness to the prompts of the other speakers
    (where it reaches `sim`, the prompt was ignored); sim_resynthesised: to the prompt as the system's codec gives it
    back (SIM-r; not for outputs of another system); sim_reference: to the speaker really saying the text, where the
    list has that; predictors of naturalness; `skips`, `repeats`: share of the texts with a word skipped or said again,
    `misread`: with either."""
    context: dict[str, Estimate]
    """The same judges on real recordings: recordings_*; prompts_* (naturalness); same_speaker, different_speakers."""
    rows: list[Row]
    real_time_factor: float = math.nan
    """Seconds of computing per second of speech; NaN for the outputs of another system."""

    def results(self, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The content of `results.json`. `config`: what the evaluation depended on."""
        return results_head("tts", config, seed, len(self.rows)) | {
            "text_normalisation": NORMALISATION,
            "speakers": len({row.texts["speaker"] for row in self.rows}),
            "metrics": {name: value.to_dict() for name, value in self.metrics.items()},
            "context": {name: value.to_dict() for name, value in self.context.items()},
        }

    def write(self, folder: Path, config: Mapping[str, Any], seed: int) -> None:
        """Write `results.json`, `utterances.tsv` and `timing.json`."""
        write_results(folder, self.results(config, seed), self.rows)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "gpu": gpu}
        write_json(folder / "timing.json", {"real_time_factor": number(self.real_time_factor), "machine": machine})


def score_run(store: RunFolder, trials: Sequence[Trial], recordings: Sequence[Recording], seed: int = 0) -> TTSReport:
    """Score what `store` holds; the same seed gives the same figures.

    An output in which nothing is heard counts as 100 % errors; it has no voice and so no likeness, which `excluded`
    of the estimate tells.
    """
    rows = _rows(store, trials)
    context = _context(store, trials, recordings, seed)
    return TTSReport(summarise(rows, seed), context, rows, _real_time_factor(store, rows))


def _rows(store: RunFolder, trials: Sequence[Trial]) -> list[Row]:
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
        sim = likeness(found.voice, voices[trial.prompt_id])
        cells: dict[str, str | float | None] = {
            "id": trial.id,
            "prompt": trial.prompt_id,
            "speaker": trial.speaker,
            "text": trial.text,
            **found.heard_columns(trial.text),
            "sim": sim.value,
            "sim_others": sum(known) / len(known) if known else None,
        }
        if again:
            cells["sim_resynthesised"] = likeness(found.voice, again[trial.prompt_id]).value
        if trial.id in references:
            cells["sim_reference"] = likeness(found.voice, references[trial.id]).value
        cells |= found.naturalness_columns() | {"seconds": found.seconds}
        cells["stop_reason"] = store.made(trial.id).stop_reason
        cells["notes"] = "; ".join(filter(None, (sim.reason, found.reading.reason if found.reading else "")))
        rows.append(Row(cells))
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
    spread = voice_spread([judgement.voice for judgement, *_ in real], [speaker for *_, speaker in real])
    figures = summarise([Row(j.heard_columns(text) | j.naturalness_columns()) for j, text, _ in real], seed)
    judged = [store.judgement("prompts", id_) for id_ in store.prompts(trials)]
    prompts = summarise([Row(judgement.naturalness_columns()) for judgement in judged], seed)
    return {
        **{f"recordings_{name}": value for name, value in figures.items()},
        **{f"prompts_{name}": value for name, value in prompts.items()},
        "same_speaker": estimate(spread.same_speaker, seed=seed),
        "different_speakers": estimate(spread.different_speakers, seed=seed),
    }


def _real_time_factor(store: RunFolder, rows: Sequence[Row]) -> float:
    took = [store.made(row.id).seconds_to_make for row in rows]
    known, seconds = [value for value in took if value is not None], sum(row.numbers["seconds"] or 0.0 for row in rows)
    return sum(known) / seconds if known and seconds else math.nan
