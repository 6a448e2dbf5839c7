"""How alike the time-invariant representations of two halves of an utterance are (TiCodec, figure 2).

With the consistency loss (eq. 1) the cosine should be near 1: the codes then hold what does not change in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from valle.common.files import writing
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec


@dataclass(frozen=True)
class Consistency:
    """Cosines: of the two halves of each utterance, and of its first half and the second half of another speaker's."""

    halves: list[float]
    others: list[float]


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
