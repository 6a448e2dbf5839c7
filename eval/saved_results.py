"""Results read back from disk, for reports and comparisons: `load_systems`. Free of torch, so it starts at once."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valle.common.audio import find_audio
from valle.common.errors import UserError
from valle.eval.stats import Estimate

_TEXTUAL = {
    *("id", "prompt", "speaker", "text", "diff", "stop_reason", "notes", "time_invariant", "codec"),
    *("heard_skipped", "heard_repeated", "skipped_words", "repeated_words"),
}


@dataclass
class Row:
    """One judged utterance: words in `texts`, figures in `numbers` (None: not measurable)."""

    id: str
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float | None] = field(default_factory=dict)


@dataclass
class System:
    """One system's results: of a model, or of a codec in one of its conditions."""

    name: str
    results: dict[str, Any]
    """As in `results.json`."""
    metrics: dict[str, Estimate]
    context: dict[str, Estimate]
    rows: dict[str, Row]
    folder: Path
    audio_folder: str = "wavs"
    n_q: int | None = None
    """Of a codec: the quantizers it decoded with; None where it had another utterance's time-invariant codes."""

    def audio(self, id_: str) -> Path | None:
        """Where the output is, if it was kept."""
        return find_audio(self.folder / self.audio_folder, id_)

    def prompt(self, id_: str) -> Path | None:
        """Where the prompt is, if it was kept."""
        return find_audio(self.folder / "prompts", id_)

    def reference(self, id_: str) -> Path | None:
        """Where the speaker really says the text, if the list has that."""
        return find_audio(self.folder / "references", id_)


def load_systems(paths: Sequence[str | Path]) -> list[System]:
    """The systems of result folders (or their results.json); `NAME=PATH` gives one a name.

    Raises `UserError` for what is missing, not readable, or of two kinds.
    """
    systems: list[System] = []
    for path in paths:
        systems += _load(str(path))
    kinds = {system.results["kind"] for system in systems}
    if len(kinds) > 1:
        raise UserError(f"results of different kinds cannot stand beside each other: {', '.join(sorted(kinds))}")
    names = [system.name for system in systems]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two systems are called '{twice}'; name them: first=PATH second=PATH")
    return systems


def _load(path: str) -> list[System]:
    name, _, rest = path.rpartition("=")
    folder = Path(rest)
    if folder.name == "results.json":
        folder = folder.parent
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        with (folder / "utterances.tsv").open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        kind = results["kind"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; give a folder that 'valle eval ... --out' wrote") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} does not hold results that can be read ({error})") from error
    name = name or folder.resolve().name
    if kind == "tts":
        metrics, context = _estimates(results["metrics"]), _estimates(results["context"])
        return [System(name, results, metrics, context, _rows(table), folder)]
    return [_condition(name, results, condition, table, folder) for condition in results["conditions"]]


def _condition(
    name: str, results: dict[str, Any], condition: dict[str, Any], table: list[dict[str, str]], folder: Path
) -> System:
    codec, way, n_q = condition["codec"], condition["time_invariant"], condition["n_q"]
    rows = [r for r in table if (r["codec"], r["time_invariant"], r["n_q"]) == (codec, way, str(n_q))]
    several = len(results["codecs"]) > 1
    label = f"{name}, {f'{codec}, ' if several else ''}{n_q} quantizers"
    label += ", voice of another utterance" if way == "cross" else ""
    wavs = f"wavs/{f'{codec}/' if several else ''}{way}-{n_q}"
    own = n_q if way == "own" else None
    return System(label, results, _estimates(condition["metrics"]), {}, _rows(rows), folder, wavs, own)


def _rows(table: list[dict[str, str]]) -> dict[str, Row]:
    rows = {}
    for cells in table:
        numbers = {name: _number(cell) for name, cell in cells.items() if name not in _TEXTUAL}
        texts = {name: cell for name, cell in cells.items() if name in _TEXTUAL}
        rows[cells["id"]] = Row(cells["id"], texts, numbers)
    return rows


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _estimates(metrics: dict[str, Any]) -> dict[str, Estimate]:
    return {name: _estimate(saved) for name, saved in metrics.items()}


def _estimate(saved: dict[str, Any]) -> Estimate:
    value, low, high = (math.nan if saved[name] is None else float(saved[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, saved["n"], saved["excluded"])
