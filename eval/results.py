"""Results on disk: `results.json`, a table with a row for each utterance, and what they were made with."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import valle
from valle.eval.codec import CodecReport, CodecRow
from valle.eval.text import TextScore
from valle.eval.tts import TTSReport, TTSRow
from valle.tokenizers.errors import UserError

FORMAT_VERSION = 1
_PACKAGES = (
    *("torch", "numpy", "transformers", "jiwer", "pocketsphinx", "Resemblyzer", "pystoi", "pesq", "soxr"),
    *("visqol-python", "speechmos", "phonemizer", "num2words"),
)


def tts_results(report: TTSReport, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The content of `results.json` for a TTS evaluation; only its `real_time_factors` differ from run to run."""
    return _results("tts", config, seed, len(report.rows)) | {
        "metrics": {name: value.to_dict() for name, value in report.metrics.items()},
        "context": {name: value.to_dict() for name, value in report.context.items()},
        "real_time_factors": {"clone": _number(report.real_time_factor)},
    }


def codec_results(report: CodecReport, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The content of `results.json` for a codec evaluation; only its `real_time_factors` differ from run to run."""
    return _results("codec", config, seed, len({row.id for row in report.rows})) | {
        "parameters": report.parameters,
        "time_invariant_bits": report.time_invariant_bits,
        "seconds": report.seconds,
        "conditions": [
            {
                "time_invariant": summary.time_invariant,
                "n_q": summary.n_q,
                "bitrate": summary.bitrate,
                "metrics": {name: value.to_dict() for name, value in summary.metrics.items()},
            }
            for summary in report.summaries
        ],
        "real_time_factors": {
            "encode": _number(report.encode_rtf),
            **{f"decode {s.time_invariant} n_q={s.n_q}": _number(s.decode_rtf) for s in report.summaries},
        },
    }


def tts_table(rows: Sequence[TTSRow]) -> list[dict[str, Any]]:
    """One flat row an utterance."""
    return [
        {
            "id": row.job.id,
            "prompt": row.job.prompt.id,
            "speaker": row.job.prompt.speaker,
            **_text_columns(row.text),
            "sim": row.sim.value,
            "sim_others": row.sim_others.value,
            "seconds": row.seconds,
            "stop_reason": row.stop_reason,
            "notes": row.sim.reason,
        }
        for row in rows
    ]


def codec_table(rows: Sequence[CodecRow]) -> list[dict[str, Any]]:
    """One flat row for each utterance, way and number of quantizers."""
    return [
        {
            "id": row.id,
            "speaker": row.speaker,
            "time_invariant": row.time_invariant,
            "n_q": row.n_q,
            **{name: score.value for name, score in row.scores.items()},
            **(_text_columns(row.text) if row.text else {}),
            "notes": "; ".join(f"{name}: {score.reason}" for name, score in row.scores.items() if score.reason),
        }
        for row in rows
    ]


def write_results(folder: Path, results: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `utterances.tsv` into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        (folder / "utterances.tsv").write_text(_tsv(table), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write results into {folder}: {error.strerror}; choose another --out") from error


def _results(kind: str, config: Mapping[str, Any], seed: int, n: int) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "config": dict(config),
        "seed": seed,
        "n": n,
        "interval": "95 %, percentile bootstrap over utterances",
        "versions": {"valle": valle.__version__, "python": platform.python_version(), **_versions()},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "torch_threads": torch.get_num_threads()},
    }


def _number(value: float) -> float | None:
    """For JSON, which knows no NaN."""
    return None if math.isnan(value) else value


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional one
    return found


def _text_columns(text: TextScore) -> dict[str, Any]:
    return {
        "wer": text.words.rate,
        "cer": text.characters.rate,
        "words": text.words.length,
        "substitutions": text.words.substitutions,
        "deletions": text.words.deletions,
        "insertions": text.words.insertions,
        "diff": text.diff,
        "skipped": " | ".join(text.skipped),
        "repeated": " | ".join(text.repeated),
    }


def _tsv(table: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in table for name in row))
    lines = [columns, *([_cell(row.get(name)) for name in columns] for row in table)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split())
