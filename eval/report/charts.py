"""Distributions as SVG: one dot for each utterance, so that nothing hides behind a mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape

from valle.eval.figures import Figure

_WIDTH, _ROW, _TOP, _BOTTOM = 640, 56, 8, 26
_DOT, _BINS = 3.2, 72


def distribution(figure: Figure, values: Mapping[str, Sequence[float]], real: float | None = None) -> str:
    """An SVG with a row of stacked dots for each system of `values`; `real`: where real recordings stand."""
    everything = [value for row in values.values() for value in row] + ([] if real is None else [real])
    low, high = _range(everything, figure)

    def x(value: float) -> float:
        return 8 + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - 16)

    height = _TOP + _ROW * len(values) + _BOTTOM
    parts = []
    for i, (name, row) in enumerate(values.items()):
        base = _TOP + _ROW * (i + 1) - 4
        parts.append(f'<g class="s{i % 6}">{_dots(row, x, base)}</g>')
        if len(values) > 1:
            parts.append(f'<text x="8" y="{base - _ROW + 16}" class="name">{escape(name)}</text>')
        parts.append(f'<line x1="8" x2="{_WIDTH - 8}" y1="{base + 2}" y2="{base + 2}" class="base"/>')
    if real is not None:
        parts.append(f'<line x1="{x(real):.1f}" x2="{x(real):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}" class="real"/>')
    steps = round((high - low) / 0.25) if figure.percent else 4
    for step in range(steps + 1):
        value = low + (high - low) * step / steps
        anchor = "start" if step == 0 else "end" if step == steps else "middle"
        label = f"{100 * value:.0f} %" if figure.percent else f"{value:.2f}"
        parts.append(f'<text x="{x(value):.1f}" y="{height - 6}" text-anchor="{anchor}">{label}</text>')
    summary = "; ".join(f"{name}: {_quartiles(figure, row)}" for name, row in values.items() if row)
    label = escape(f"{figure.label} of each utterance. {summary}", quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _dots(row: Sequence[float], x: Callable[[float], float], base: float) -> str:
    """Dots stacked upwards from `base` where values fall into one column."""
    step = (_WIDTH - 16) / _BINS
    stacks = Counter(int((x(value) - 8) / step) for value in row)
    # Many in one place overlap rather than leave their row.
    rise = min(2 * _DOT + 0.6, (_ROW - 10) / max(stacks.values(), default=1))
    return "".join(
        f'<circle cx="{8 + (column + 0.5) * step:.1f}" cy="{base - _DOT - i * rise:.1f}" r="{_DOT}"/>'
        for column, height in sorted(stacks.items())
        for i in range(height)
    )


def _range(values: Sequence[float], figure: Figure) -> tuple[float, float]:
    if figure.percent:
        # Insertions can take one text's errors far above 100 %; beyond 150 % they are drawn at the right edge.
        return 0.0, min(1.5, math.ceil(max([1.0, *values]) * 4) / 4)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = (high - low) * 0.03 or 0.5
    return low - margin, high + margin


def _quartiles(figure: Figure, row: Sequence[float]) -> str:
    ordered = sorted(row)
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))
    return f"median {figure.text(middle)}, middle half {figure.text(low)} to {figure.text(high)}"
