"""A codec evaluation on disk and on the screen: JSON, a row for each utterance, the columns of TiCodec's table 1."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from valle.common.tables import plain_table
from valle.eval.codec import CodecReport, CodecSummary
from valle.eval.results import number, results_head, text_columns
from valle.eval.stats import estimate

_LABELS = {"visqol": "ViSQOL", "visqol_poly": "ViSQOL poly", "pesq": "PESQ", "stoi": "STOI", "mcd": "MCD"}
"""Columns, in the order of the paper's table."""


def codec_results(reports: Mapping[str, CodecReport], config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The content of `results.json` for codecs by name; only `real_time_factors` differ from run to run."""
    n = max(len({row.id for row in report.rows}) for report in reports.values())
    return results_head("codec", config, seed, n) | {
        "codecs": [{"codec": name, **_facts(report, seed)} for name, report in reports.items()],
        "conditions": [
            {
                "codec": name,
                "time_invariant": summary.time_invariant,
                "n_q": summary.n_q,
                "bitrate": summary.bitrate,
                "metrics": {metric: value.to_dict() for metric, value in summary.metrics.items()},
            }
            for name, report in reports.items()
            for summary in report.summaries
        ],
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "torch_threads": torch.get_num_threads()},
    }


def _facts(report: CodecReport, seed: int) -> dict[str, Any]:
    consistency = report.consistency
    return {
        "spec": report.spec.to_dict(),
        "parameters": report.cost.parameters,
        "macs_per_second": {"encode": report.cost.encode_macs, "decode": report.cost.decode_macs},
        "time_invariant_bits": report.time_invariant_bits,
        "time_invariant_cosine": consistency
        and {
            "halves": estimate(consistency.halves, seed=seed).to_dict(),
            "others": estimate(consistency.others, seed=seed).to_dict(),
        },
        "seconds": report.seconds,
        "real_time_factors": {
            "encode": number(report.encode_rtf),
            **{f"decode {s.time_invariant} n_q={s.n_q}": number(s.decode_rtf) for s in report.summaries},
        },
    }


def codec_rows(reports: Mapping[str, CodecReport]) -> list[dict[str, Any]]:
    """One flat row for each codec, utterance, way and number of quantizers."""
    return [
        {
            "codec": name,
            "id": row.id,
            "speaker": row.speaker,
            "time_invariant": row.time_invariant,
            "n_q": row.n_q,
            **{metric: score.value for metric, score in row.scores.items()},
            **(text_columns(row.text) if row.text else {}),
            "notes": "; ".join(f"{metric}: {score.reason}" for metric, score in row.scores.items() if score.reason),
        }
        for name, report in reports.items()
        for row in report.rows
    ]


def paper_table(reports: Mapping[str, CodecReport]) -> str:
    """Codecs by n_q in the columns of TiCodec's table 1, then other scores, and what a codec costs."""
    measured = list(dict.fromkeys(name for r in reports.values() for s in r.summaries for name in s.metrics))
    metrics = [*(name for name in _LABELS if name in measured), *(name for name in measured if name not in _LABELS)]
    lines = [["codec", "codes", "n_q", "bit/s", *(_LABELS.get(m, m) for m in metrics)]]
    lines[0] += ["M par.", "GMAC/s enc", "dec", "RTF enc", "dec"]
    for name, report in reports.items():
        lines += [[name, *_cells(report, summary, metrics)] for summary in report.summaries]
    return plain_table(lines)


def _cells(report: CodecReport, summary: CodecSummary, metrics: Sequence[str]) -> list[str]:
    cost = report.cost
    return [
        summary.time_invariant,
        str(summary.n_q),
        f"{summary.bitrate:.0f}",
        *(f"{summary.metrics[m].value:.3f}" if m in summary.metrics else "" for m in metrics),
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.encode_macs / 1e9:.3f}",
        f"{cost.decode_macs / 1e9:.3f}",
        f"{report.encode_rtf:.4f}",
        f"{summary.decode_rtf:.4f}",
    ]
