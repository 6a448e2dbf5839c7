"""The results of a TTS evaluation on disk.

results.json     figures and what they were made with; the same for the same seed, whoever ran it
utterances.tsv   a row for each text
timing.json      what differs from run to run: speed, machine
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from valle.eval.results import number, results_head, text_columns, write_json, write_table
from valle.eval.tts_scores import TTSReport, TTSRow

NORMALISATION = "numbers and symbols spelled out, lower case, no punctuation but apostrophes within words"


def write_tts_results(folder: Path, report: TTSReport, config: Mapping[str, Any], seed: int) -> None:
    """Write the three files. `config`: what the evaluation depended on."""
    write_json(folder / "results.json", tts_results(report, config, seed))
    write_table(folder / "utterances.tsv", tts_table(report.rows))
    write_json(folder / "timing.json", timing(report))


def tts_results(report: TTSReport, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The content of `results.json`."""
    return results_head("tts", config, seed, len(report.rows)) | {
        "text_normalisation": NORMALISATION,
        "speakers": len({row.trial.speaker for row in report.rows}),
        "metrics": {name: value.to_dict() for name, value in report.metrics.items()},
        "context": {name: value.to_dict() for name, value in report.context.items()},
    }


def timing(report: TTSReport) -> dict[str, Any]:
    """The content of `timing.json`."""
    return {
        "real_time_factor": number(report.real_time_factor),
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def tts_table(rows: Sequence[TTSRow]) -> list[dict[str, Any]]:
    """One flat row a text."""
    return [
        {
            "id": row.trial.id,
            "prompt": row.trial.prompt_id,
            "speaker": row.trial.speaker,
            "text": row.trial.text,
            **text_columns(row.text),
            **_reading_columns(row),
            "sim": row.sim.value,
            "sim_others": row.sim_others.value,
            **({"sim_resynthesised": row.sim_resynthesised.value} if row.sim_resynthesised else {}),
            **({"sim_reference": row.sim_reference.value} if row.sim_reference else {}),
            **{name: score.value for name, score in row.naturalness.items()},
            "seconds": row.seconds,
            "stop_reason": row.stop_reason,
            "notes": "; ".join(filter(None, (row.sim.reason, row.reading.reason if row.reading else ""))),
        }
        for row in rows
    ]


def _reading_columns(row: TTSRow) -> dict[str, Any]:
    if row.reading is None:
        return {}
    known = not row.reading.reason
    return {
        "skipped": len(row.reading.skipped) if known else None,
        "repeated": len(row.reading.repeated) if known else None,
        "skipped_words": " ".join(row.reading.skipped),
        "repeated_words": " ".join(row.reading.repeated),
    }
