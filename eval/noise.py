"""What every metric makes of growing noise: the check that a measuring instrument moves, and moves the right way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from valle.common.audio import load_audio
from valle.eval.codec_metrics import find_metric
from valle.eval.figures import find_figure
from valle.eval.judging import SAMPLE_RATE, Judges
from valle.eval.lists import Recording
from valle.eval.measure import measure
from valle.eval.similarity import embed_all, likeness
from valle.eval.stats import estimate
from valle.eval.text import score_text, wer

SNRS = (40.0, 30.0, 20.0, 10.0, 0.0)
"""Of white noise, in dB; the first stands for clean."""


@dataclass(frozen=True)
class Curve:
    """A metric's means over the recordings, at each of `snrs` (dB, from clean to noisy)."""

    metric: str
    snrs: tuple[float, ...]
    values: list[float]

    @property
    def falls(self) -> bool:
        """Whether more noise is never better."""
        sign = 1 if find_figure(self.metric).higher_is_better else -1
        return all(sign * a >= sign * b for a, b in zip(self.values, self.values[1:], strict=False))


def noise_curves(
    recordings: Sequence[Recording], judges: Judges, metrics: Sequence[str], snrs: Sequence[float] = SNRS, seed: int = 0
) -> list[Curve]:
    """WER, likeness to the clean recording, naturalness and the codec metrics called `metrics`, at each of `snrs`."""
    clean = [load_audio(recording.path, SAMPLE_RATE) for recording in recordings]
    voices = embed_all(judges.speaker_model, clean, SAMPLE_RATE)
    values: dict[str, list[float]] = {}
    for snr in snrs:
        noisy = [with_noise(wav, snr, seed + i) for i, wav in enumerate(clean)]
        found = judges.judge(noisy, [recording.text for recording in recordings])
        texts = [score_text(r.text, judgement.heard) for r, judgement in zip(recordings, found, strict=True)]
        values.setdefault("wer", []).append(wer(texts).value)
        likenesses = [likeness(voice, judgement.voice).value for voice, judgement in zip(voices, found, strict=True)]
        values.setdefault("sim", []).append(estimate(likenesses).value)
        for name in found[0].naturalness:
            values.setdefault(name, []).append(estimate([j.naturalness[name].value for j in found]).value)
        for name in metrics:
            function = find_metric(name).function
            scores = [measure(function, a, b, SAMPLE_RATE).value for a, b in zip(clean, noisy, strict=True)]
            values.setdefault(name, []).append(estimate(scores).value)
    return [Curve(name, tuple(snrs), row) for name, row in values.items()]


def with_noise(wav: Tensor, snr: float, seed: int) -> Tensor:
    """`wav` [S] with white noise `snr` dB below its power."""
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(seed))
    return wav + noise * wav.square().mean().sqrt() * 10 ** (-snr / 20)


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """A PNG or SVG with a panel for each curve."""
    from matplotlib.figure import Figure

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(2.4 * columns, 1.7 * rows), layout="constrained")
    for i, curve in enumerate(curves):
        axis = figure.add_subplot(rows, columns, i + 1)
        shown = find_figure(curve.metric)
        scale = 100 if shown.percent else 1
        axis.plot(curve.snrs, [scale * value for value in curve.values], marker="o", markersize=3)
        axis.invert_xaxis()
        axis.set_title(f"{shown.label}{', %' if shown.percent else ''}", fontsize=8)
        axis.set_xlabel("noise, dB SNR", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path)
