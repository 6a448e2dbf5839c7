"""What a reader must know of each figure: its label, how it is written, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


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
