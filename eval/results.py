"""Results: what is known of each utterance, the figures of all, and both on disk and back.

results.json     figures and what they were made with
utterances.tsv   a `Row` for each utterance
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import valle
from valle.common.audio import find_audio
from valle.common.errors import UserError
from valle.common.files import writing
from valle.common.hub import find_model
from valle.common.tables import read_table
from valle.eval.stats import Estimate, estimate

FORMAT_VERSION = 1
_PACKAGES = (
    *("torch", "numpy", "transformers", "jiwer", "pocketsphinx", "Resemblyzer", "pystoi", "pesq", "soxr"),
    *("visqol-python", "speechmos", "phonemizer", "num2words"),
)
_TEXTUAL = {
    *("id", "prompt", "speaker", "text", "diff", "stop_reason", "notes", "time_invariant", "codec", "stage"),
    *("heard_skipped", "heard_repeated", "skipped_words", "repeated_words"),
}
_RATES = {"wer": ("words", ("substitutions", "deletions", "insertions")), "cer": ("characters", None)}
"""Errors of a corpus are all errors over all words (or characters), not the mean of the utterances' rates."""
_YES_NO = {"skips": ("skipped",), "repeats": ("repeated",), "misread": ("skipped", "repeated")}
_NO_FIGURES = {
    *("words", "characters", "substitutions", "deletions", "insertions", "seconds", "n_q", "skipped", "repeated")
}


@dataclass(frozen=True)
class Figure:
    """How a metric is shown."""

    name: str
    label: str
    higher_is_better: bool
    percent: bool = False
    real: str | None = None
    """The figure of real recordings that stands beside it."""

    def text(self, value: float | None) -> str:
        """`value` as it is written; an en dash where there is none."""
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3f}"

    def tick(self, value: float) -> str:
        """`value` as it stands at an axis."""
        return f"{100 * value:.0f} %" if self.percent else f"{value:.2f}"


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("wer", "Word errors", False, True, "recordings_wer"),
        Figure("cer", "Character errors", False, True, "recordings_cer"),
        Figure("skips", "Texts with a skipped word", False, True, "recordings_skips"),
        Figure("repeats", "Texts with a repeated word", False, True, "recordings_repeats"),
        Figure("misread", "Texts with a skipped or repeated word", False, True, "recordings_misread"),
        Figure("sim", "Likeness to the prompt", True, False, "same_speaker"),
        Figure("sim_resynthesised", "Likeness to the prompt out of the codec", True),
        Figure("sim_others", "Likeness to other prompts", False, False, "different_speakers"),
        Figure("sim_reference", "Likeness to the real recording", True),
        Figure("dnsmos", "DNSMOS, overall", True, False, "recordings_dnsmos"),
        Figure("dnsmos_sig", "DNSMOS, signal", True, False, "recordings_dnsmos_sig"),
        Figure("dnsmos_bak", "DNSMOS, background", True, False, "recordings_dnsmos_bak"),
        Figure("utmos", "UTMOS", True, False, "recordings_utmos"),
        Figure("nisqa", "NISQA, overall", True, False, "recordings_nisqa"),
        Figure("visqol", "ViSQOL", True),
        Figure("visqol_poly", "ViSQOL, polynomial mapper", True),
        Figure("pesq", "PESQ, wide band", True),
        Figure("stoi", "STOI", True),
        Figure("mcd", "Mel-cepstral distortion, dB", False),
    )
}
"""In the order in which they are shown."""


def find_figure(name: str) -> Figure:
    """The figure called `name`; one that is not known is shown under its own name, higher taken for better."""
    return FIGURES.get(name, Figure(name, name, True))


def in_order(names: set[str]) -> list[str]:
    """`names` as they are shown: the known ones in their order, then the others."""
    return [*(name for name in FIGURES if name in names), *sorted(names - set(FIGURES))]


@dataclass(frozen=True)
class Row:
    """One judged utterance, by the columns of `utterances.tsv`: words, and figures (None: not measurable)."""

    cells: dict[str, str | float | None]

    @property
    def id(self) -> str:
        return str(self.cells["id"])

    @cached_property
    def texts(self) -> dict[str, str]:
        """The words, by column."""
        return {name: str(cell or "") for name, cell in self.cells.items() if name in _TEXTUAL}

    @cached_property
    def numbers(self) -> dict[str, float | None]:
        """The figures, by column."""
        return {
            name: None if cell is None or cell == "" else float(cell)
            for name, cell in self.cells.items()
            if name not in _TEXTUAL
        }


def figure_names(rows: Sequence[Row]) -> list[str]:
    """What can be summed up of `rows`: columns that are figures, then the shares of texts with a skip or a repeat."""
    columns = dict.fromkeys(name for row in rows for name in row.numbers)
    return [
        *(name for name in columns if name not in _NO_FIGURES),
        *(name for name, needed in _YES_NO.items() if columns.keys() >= set(needed)),
    ]


def figure_values(name: str, rows: Sequence[Row]) -> tuple[list[float | None], list[float] | None]:
    """What is summed up for figure `name`, one of each row, and its weights (None: a plain mean)."""
    if name in _YES_NO:
        return [_any_of(row, _YES_NO[name]) for row in rows], None
    if name not in _RATES:
        return [row.numbers.get(name) for row in rows], None
    unit, parts = _RATES[name]
    lengths = [row.numbers.get(unit) or 0.0 for row in rows]
    if parts is not None:
        return [sum(row.numbers.get(part) or 0.0 for part in parts) for row in rows], lengths
    # Errors are whole, whatever a rate has lost where it was written down.
    return [round((row.numbers.get(name) or 0.0) * length) for row, length in zip(rows, lengths, strict=True)], lengths


def _any_of(row: Row, columns: Sequence[str]) -> float | None:
    known = [row.numbers.get(column) for column in columns]
    return None if None in known else float(any(known))


def summarise(rows: Sequence[Row], seed: int = 0) -> dict[str, Estimate]:
    """Every figure of `rows` with its interval.

    A row that lacks the column is not counted; one that has no value there is `excluded`.
    """
    found = {}
    for name in figure_names(rows):
        needed = _YES_NO.get(name, (name,))
        values, weights = figure_values(name, [row for row in rows if row.numbers.keys() >= set(needed)])
        found[name] = estimate(values, weights, seed)
    return found


def write_results(folder: Path, results: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write `results.json` and `utterances.tsv` into `folder`."""
    write_json(folder / "results.json", results)
    write_table(folder / "utterances.tsv", [row.cells for row in rows])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content`, which may hold no NaN, as JSON."""
    _write(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a tab-separated table; its columns are all names that occur, in their first order."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    lines = [columns, *([_cell(row.get(name)) for name in columns] for row in table)]
    _write(path, "".join("\t".join(line) + "\n" for line in lines))


def results_head(kind: str, config: Mapping[str, Any], seed: int, n: int) -> dict[str, Any]:
    """What all results begin with."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": dict(config),
        "seed": seed,
        "n": n,
        "interval": "95 %, percentile bootstrap over utterances",
        "versions": {"valle": valle.__version__, "python": platform.python_version(), **versions()},
    }


def number(value: float) -> float | None:
    """For JSON, which knows no NaN."""
    return None if math.isnan(value) else value


def versions() -> dict[str, str]:
    """Of the packages that scores depend on, as far as they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional one
    return found


def _write(path: Path, text: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split())


def hash_files(paths: Iterable[Path]) -> str:
    """Of the contents of `paths`, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def hash_model(model: str | None) -> str:
    """Of the weights and the configuration of a model folder, Hub id, or the embedded model (None)."""
    folder = find_model(model)
    return hash_files(sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}))


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
        kind = results["kind"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; give a folder that 'valle eval ... --out' wrote") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} does not hold results that can be read ({error})") from error
    name, rows = name or folder.resolve().name, _read_rows(folder)
    if kind == "tts":
        metrics, context = _estimates(results["metrics"]), _estimates(results["context"])
        return [System(name, results, metrics, context, {row.id: row for row in rows}, folder)]
    if kind != "codec":
        raise UserError(f"{folder} holds results of 'valle eval {kind}'; give some of 'valle eval tts' or 'codec'")
    return [_condition(name, results, condition, rows, folder) for condition in results["conditions"]]


def _read_rows(folder: Path) -> list[Row]:
    return [Row(dict(cells)) for _, cells in read_table(folder / "utterances.tsv", ["id"])]


def _condition(
    name: str, results: dict[str, Any], condition: dict[str, Any], rows: Sequence[Row], folder: Path
) -> System:
    codec, way, n_q = condition["codec"], condition["time_invariant"], condition["n_q"]
    mine = [row for row in rows if (row.texts["codec"], row.texts["time_invariant"]) == (codec, way)]
    of = {row.id: row for row in mine if row.numbers["n_q"] == n_q}
    several = len(results["codecs"]) > 1
    label = f"{name}, {f'{codec}, ' if several else ''}{n_q} quantizers"
    label += ", voice of another utterance" if way == "cross" else ""
    wavs = f"wavs/{f'{codec}/' if several else ''}{way}-{n_q}"
    own = n_q if way == "own" else None
    return System(label, results, _estimates(condition["metrics"]), {}, of, folder, wavs, own)


def _estimates(metrics: dict[str, Any]) -> dict[str, Estimate]:
    return {name: _estimate(saved) for name, saved in metrics.items()}


def _estimate(saved: dict[str, Any]) -> Estimate:
    value, low, high = (math.nan if saved[name] is None else float(saved[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, saved["n"], saved["excluded"])
