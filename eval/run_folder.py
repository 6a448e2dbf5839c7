"""The folder of a TTS evaluation: what was said, by whom, and what the judges made of it.

run.json                what the results depend on; a folder holds one evaluation
prompts/ID.*            the voices
resynthesised/ID.wav    the voices as the system's codec gives them back
references/ID.*         the speakers really saying the texts, where a list has them
wavs/ID.wav             outputs
made/ID.json            how an output came about
judged/KIND/ID.json     judgements of trials, prompts and recordings
results.json, utterances.tsv, timing.json     see `valle.eval.tts_results`
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from valle.common.audio import find_audio, save_audio
from valle.common.errors import UserError
from valle.common.files import whole
from valle.eval.judging import Judgement
from valle.eval.lists import Recording
from valle.eval.trials import Trial

FORMAT_VERSION = 1


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
