"""Results on disk: `results.json`, a table with a row for each utterance, and what they were made with."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import valle
from valle.common.files import writing
from valle.eval.text import TextScore

FORMAT_VERSION = 1
_PACKAGES = (
    *("torch", "numpy", "transformers", "jiwer", "pocketsphinx", "Resemblyzer", "pystoi", "pesq", "soxr"),
    *("visqol-python", "speechmos", "phonemizer", "num2words"),
)


def write_results(folder: Path, results: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `utterances.tsv` into `folder`."""
    write_json(folder / "results.json", results)
    write_table(folder / "utterances.tsv", table)


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


def text_columns(text: TextScore) -> dict[str, Any]:
    """The columns that say what was heard."""
    return {
        "wer": text.words.rate,
        "cer": text.characters.rate,
        "words": text.words.length,
        "characters": text.characters.length,
        "substitutions": text.words.substitutions,
        "deletions": text.words.deletions,
        "insertions": text.words.insertions,
        "diff": text.diff,
        "heard_skipped": " | ".join(text.skipped),
        "heard_repeated": " | ".join(text.repeated),
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
