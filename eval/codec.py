"""How much of speech survives a codec: `evaluate_codec`, and its results on disk and on the screen."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.common.files import writing
from valle.common.tables import plain_table
from valle.eval.judges.codec_metrics import DEFAULT_METRICS, find_metric
from valle.eval.judges.measure import KeptScores, Score
from valle.eval.judges.recognisers import Recogniser
from valle.eval.judges.similarity import SpeakerModel, embed_all, likeness
from valle.eval.judges.text import score_text
from valle.eval.protocols import Recording
from valle.eval.results import Row, number, results_head, summarise
from valle.eval.stats import Estimate, estimate
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec, SpeechCodes
from valle.tokenizers.codecs.cost import Cost, measure_cost

OWN = "own"
"""Decoded with the utterance's own time-invariant codes: plain reconstruction."""
CROSS = "cross"
"""Decoded with those of the speaker's next utterance: what cloning does with the prompt's codes. Where these codes
hold the voice and nothing else, the scores stay (TiCodec, section 2.2)."""

DEFAULT_N_QS = (1, 2, 4)
_LABELS = {"visqol": "ViSQOL", "visqol_poly": "ViSQOL poly", "pesq": "PESQ", "stoi": "STOI", "mcd": "MCD"}
"""Columns, in the order of the paper's table."""


@dataclass(frozen=True)
class CodecSummary:
    """All utterances decoded in one way."""

    time_invariant: str
    n_q: int
    bitrate: float
    """Bits per second of the frame codes; the time-invariant codes come once per utterance."""
    decode_rtf: float
    """Seconds of decoding per second of speech."""
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Consistency:
    """How alike the time-invariant representations of two halves of an utterance are (TiCodec, figure 2).

    Cosines: of the two halves of each utterance, and of its first half and the second half of another speaker's. With
    the consistency loss (eq. 1) the former should be near 1: the codes then hold what does not change in time.
    """

    halves: list[float]
    others: list[float]


@dataclass(frozen=True)
class CodecReport:
    """What `evaluate_codec` found."""

    spec: CodecSpec
    cost: Cost
    consistency: Consistency | None
    """Of the time-invariant part, where the codec has one."""
    time_invariant_bits: float
    """Bits per utterance."""
    encode_rtf: float
    """Seconds of encoding per second of speech."""
    seconds: float
    """Speech evaluated."""
    summaries: list[CodecSummary]
    rows: list[Row]


def evaluate_codec(
    codec: SpeechCodec,
    utterances: Sequence[Recording],
    n_qs: Sequence[int] | None = None,
    cross_time_invariant: bool = True,
    metrics: Sequence[str] = DEFAULT_METRICS,
    recogniser: Recogniser | None = None,
    speaker_model: SpeakerModel | None = None,
    wav_folder: Path | None = None,
    seed: int = 0,
    half_seconds: float | None = None,
    kept: KeptScores | None = None,
    done: Callable[[CodecSummary], None] = lambda summary: None,
) -> CodecReport:
    """Encode and decode `utterances` and compare with the originals.

    n_qs:       numbers of quantizers to decode with; default: those of 1, 2, 4 that the codec has
    cross_time_invariant: also decode with the time-invariant codes of another utterance of the same speaker;
                nothing to do for a codec without such codes
    recogniser, speaker_model: also report `wer` and `cer`, and `sim` to the original
    wav_folder: where to keep the decoded audio, as `<own|cross>-<n_q>/<id>.wav`
    seed:       of the bootstrap
    kept:       scores of an evaluation that was interrupted, to which new ones are added
    done:       called with each summary as soon as there is one
    Raises `UserError` for an unknown metric and for a number of quantizers that the codec has not.
    """
    spec = codec.spec
    n_qs = [n for n in DEFAULT_N_QS if n <= spec.n_q] if n_qs is None else n_qs
    if wrong := [n for n in n_qs if not 1 <= n <= spec.n_q]:
        raise UserError(f"codec '{spec.name}' has {spec.n_q} quantizers and cannot decode with {wrong[0]}")
    originals = [load_audio(u.path, spec.sample_rate) for u in utterances]
    judge = _Judge(utterances, originals, spec.sample_rate, metrics, recogniser, speaker_model, kept or KeptScores())
    donors: dict[str, list[int | None]] = {OWN: list(range(len(utterances)))}
    if cross_time_invariant and spec.n_time_invariant:
        donors[CROSS] = _next_of_speaker(utterances)
    codes, encode_rtf = _encode(codec, originals)
    summaries, rows = [], []
    for way, n_q in product(donors, n_qs):
        decoded, decode_rtf = _decode(codec, codes, donors[way], n_q, originals)
        measured = judge.score(decoded, way, n_q)
        bitrate = n_q * math.log2(spec.codebook_size) * spec.frame_rate
        summaries.append(CodecSummary(way, n_q, bitrate, decode_rtf, summarise(measured, seed)))
        done(summaries[-1])
        rows += measured
        if wav_folder:
            for utterance, wav in zip(utterances, decoded, strict=True):
                if wav is not None:
                    save_audio(wav_folder / f"{way}-{n_q}" / f"{utterance.id}.wav", wav, spec.sample_rate)
    return CodecReport(
        spec=spec,
        cost=measure_cost(codec),
        consistency=_consistency(codec, originals, utterances, half_seconds),
        time_invariant_bits=spec.n_time_invariant * math.log2(max(1, spec.time_invariant_size)),
        encode_rtf=encode_rtf,
        seconds=sum(wav.shape[0] for wav in originals) / spec.sample_rate,
        summaries=summaries,
        rows=rows,
    )


class _Judge:
    """Scores decoded utterances against the same originals again and again."""

    def __init__(
        self,
        utterances: Sequence[Recording],
        originals: list[Tensor],
        sample_rate: int,
        metrics: Sequence[str],
        recogniser: Recogniser | None,
        speaker_model: SpeakerModel | None,
        kept: KeptScores,
    ) -> None:
        self.utterances, self.originals, self.sample_rate = utterances, originals, sample_rate
        self.kept = kept
        self.functions = {name: find_metric(name) for name in metrics}
        self.recogniser, self.speaker_model = recogniser, speaker_model
        self.voices = embed_all(speaker_model, originals, sample_rate) if speaker_model else []

    def score(self, decoded: list[Tensor | None], way: str, n_q: int) -> list[Row]:
        """One row an utterance; `decoded` holds [S] or, for an utterance that could not be decoded so, None."""
        there = [i for i, wav in enumerate(decoded) if wav is not None]
        wavs = [wav for wav in decoded if wav is not None]
        names = [*self.functions, *(["sim"] if self.speaker_model else [])]
        scores = [dict.fromkeys(names, Score(None, "the speaker has no other recording")) for _ in decoded]
        for i, wav in zip(there, tqdm(wavs, desc=f"{way}-{n_q}", unit="utt", disable=None, leave=False), strict=True):
            pair = self.originals[i], wav, self.sample_rate
            scores[i] |= {name: self.kept.measure(name, metric, *pair) for name, metric in self.functions.items()}
        if self.speaker_model:
            for i, voice in zip(there, embed_all(self.speaker_model, wavs, self.sample_rate), strict=True):
                scores[i]["sim"] = likeness(self.voices[i], voice)
        heard: dict[int, str] = {}
        if self.recogniser:
            heard = dict(zip(there, self.recogniser.transcribe(wavs, self.sample_rate), strict=True))
        return [
            Row(
                {
                    "id": utterance.id,
                    "speaker": utterance.speaker,
                    "time_invariant": way,
                    "n_q": n_q,
                    **{name: score.value for name, score in scores[i].items()},
                    **(score_text(utterance.text, heard[i]).columns() if i in heard else {}),
                    "notes": "; ".join(f"{name}: {score.reason}" for name, score in scores[i].items() if score.reason),
                }
            )
            for i, utterance in enumerate(self.utterances)
        ]


@torch.inference_mode()
def _encode(codec: SpeechCodec, wavs: list[Tensor]) -> tuple[list[SpeechCodes], float]:
    """Codes of each of `wavs` and the seconds it took per second of speech."""
    device = _device(codec)
    codec.encode(wavs[0][None, None].to(device))  # the first call pays for set-up, which is not what is timed
    started = time.perf_counter()
    # The codes are fetched to the CPU, so that a GPU has done its work when the clock is read.
    codes = [codec.encode(wav[None, None].to(device)).to("cpu") for wav in wavs]
    return codes, (time.perf_counter() - started) * codec.spec.sample_rate / sum(wav.shape[0] for wav in wavs)


@torch.inference_mode()
def _decode(
    codec: SpeechCodec, codes: list[SpeechCodes], donors: list[int | None], n_q: int, originals: list[Tensor]
) -> tuple[list[Tensor | None], float]:
    """Each utterance [S] with the time-invariant codes of its donor (None without a donor); seconds per second."""
    device = _device(codec)
    codec.decode(codes[0].first(n_q).to(device))
    decoded: list[Tensor | None] = [None] * len(codes)
    samples, started = 0, time.perf_counter()
    for i, (own, donor) in enumerate(zip(codes, donors, strict=True)):
        if donor is not None:
            parts = replace(own.first(n_q), time_invariant=codes[donor].time_invariant)
            wav = codec.decode(parts.to(device))[0, 0, : originals[i].shape[0]].cpu()
            decoded[i] = wav
            samples += wav.shape[0]
    seconds = time.perf_counter() - started
    return decoded, seconds * codec.spec.sample_rate / samples if samples else math.nan


def _consistency(
    codec: SpeechCodec, originals: Sequence[Tensor], utterances: Sequence[Recording], seconds: float | None
) -> Consistency | None:
    if not isinstance(codec, AutoencoderCodec) or codec.time_invariant is None:
        return None
    wavs = [wav.to(_device(codec)) for wav in originals]
    return measure_consistency(codec, wavs, [u.speaker for u in utterances], seconds)


def _device(codec: SpeechCodec) -> torch.device:
    return next((p.device for p in codec.parameters()), torch.device("cpu"))


def _next_of_speaker(utterances: Sequence[Recording]) -> list[int | None]:
    """For each utterance the next one of its speaker, in a ring; None where the speaker has no other."""
    of_speaker: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances):
        of_speaker.setdefault(utterance.speaker, []).append(i)
    following: list[int | None] = [None] * len(utterances)
    for own in of_speaker.values():
        if len(own) > 1:
            for i, next_one in zip(own, own[1:] + own[:1], strict=True):
                following[i] = next_one
    return following


@torch.inference_mode()
def measure_consistency(
    codec: AutoencoderCodec, wavs: Sequence[Tensor], speakers: Sequence[str], seconds: float | None = None
) -> Consistency:
    """`wavs`: [S] each, at the codec's rate; `seconds`: how much of each half, next to the middle (None: all of it).

    Over long halves what is said averages out by itself; a second of each shows what the codec makes constant.
    Raises `UserError` for a codec without a time-invariant part.
    """
    halves = []
    for wav in wavs:
        middle = len(wav) // 2
        size = middle if seconds is None else min(middle, round(seconds * codec.spec.sample_rate))
        halves.append([codec.representation(part[None, None]) for part in wav[middle - size : middle + size].chunk(2)])
    firsts, lasts = (torch.cat(column) for column in zip(*halves, strict=True))
    cosine = F.cosine_similarity(firsts[:, None], lasts[None], dim=-1).cpu()
    others = []
    for i, speaker in enumerate(speakers):
        # The next one of another speaker: as many cosines as there are utterances, and none drawn by chance.
        following = [(i + step) % len(speakers) for step in range(1, len(speakers))]
        if (other := next((j for j in following if speakers[j] != speaker), None)) is not None:
            others.append(float(cosine[i, other]))
    return Consistency(cosine.diagonal().tolist(), others)


def plot_consistency(path: Path, measured: Mapping[str, Consistency]) -> None:
    """Write a picture with the cosines of each codec side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 1.8 * len(measured), 4.5), layout="constrained")
    axis = figure.subplots()
    for shift, colour, name in ((-0.18, "tab:blue", "halves"), (0.18, "tab:orange", "others")):
        for i, consistency in enumerate(measured.values()):
            values = getattr(consistency, name)
            spread = torch.linspace(-0.09, 0.09, max(1, len(values)))[: len(values)] + i + shift
            axis.scatter(spread, values, s=9, alpha=0.5, color=colour, linewidths=0)
            if values:
                mean = sum(values) / len(values)
                axis.hlines(mean, i + shift - 0.14, i + shift + 0.14, color=colour, linewidth=2)
                axis.annotate(f"{mean:.2f}", (i + shift, mean), (0, 4), textcoords="offset points", ha="center")
    axis.scatter([], [], color="tab:blue", label="two halves of an utterance")
    axis.scatter([], [], color="tab:orange", label="halves of two speakers' utterances")
    axis.set_xticks(range(len(measured)), list(measured))
    axis.set_ylabel("cosine of time-invariant representations")
    axis.set_ylim(top=1.08)
    axis.axhline(0, color="lightgrey", linewidth=0.8, zorder=0)
    figure.legend(loc="outside lower center", fontsize="small")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


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


def codec_rows(reports: Mapping[str, CodecReport]) -> list[Row]:
    """One row for each codec, utterance, way and number of quantizers."""
    return [Row({"codec": name, **row.cells}) for name, report in reports.items() for row in report.rows]


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
