"""One HTML page with all of some results: figures, distributions, and every text with its sound and picture.

The page needs nothing but itself: no network, and no script to be read; the script adds sorting and filters.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from markupsafe import Markup

from valle.eval.report.media import Sound, load_sound
from valle.eval.report.templates import render
from valle.eval.results import Figure, Row, System, find_figure, in_order

_DISTRIBUTED = ("wer", "cer", "sim", "sim_reference", "dnsmos", "utmos", "nisqa", "visqol", "pesq", "stoi", "mcd")
_SHOWN = ("wer", "cer", "sim", "sim_reference", "dnsmos", "utmos", "nisqa", "pesq", "stoi", "mcd")
_FLAGS = {
    "skipped": "a word is skipped",
    "repeated": "a word is repeated",
    "cut": "did not come to an end",
    "silent": "nothing was heard",
}
_MOST_VOICES = 40
_WIDTH, _ROW, _TOP, _BOTTOM = 640, 56, 8, 26
_DOT, _BINS = 3.2, 72


def build_page(systems: Sequence[System], title: str, max_sounds: int = 300) -> str:
    """The page for `systems` that were given the same list.

    max_sounds: with more outputs than that, the worst ones have sound and picture, the others only their figures
    """
    ids = _worst_first(systems)
    voiced = set(ids[: max(1, max_sounds // len(systems))])
    rows = [row for system in systems for row in system.rows.values()]
    return render(
        "report.html",
        title=title,
        what="texts" if systems[0].results["kind"] == "tts" else "recordings",
        systems=systems,
        real=systems[0].context,
        figures=[find_figure(name) for name in in_order({name for system in systems for name in system.metrics})],
        charts=_charts(systems),
        voices=_voices(systems),
        speakers=sorted({row.texts.get("speaker", "") for row in rows}),
        shown=[find_figure(name) for name in _SHOWN if any(name in row.numbers for row in rows)],
        flags={flag: label for flag, label in _FLAGS.items() if any(flag in _flags(row) for row in rows)},
        cards=[_card(id_, systems, id_ in voiced) for id_ in ids],
        method={system.name: _method(system) for system in systems},
    )


def _worst_first(systems: Sequence[System]) -> list[str]:
    ids = list(dict.fromkeys(id_ for system in systems for id_ in system.rows))
    # The figure by which the page is ordered at first.
    names = {name for system in systems for row in system.rows.values() for name in row.numbers}
    rank = next((name for name in _SHOWN if name in names), "wer")

    def badness(id_: str) -> float:
        worse = _badness(rank, [system.rows[id_] for system in systems if id_ in system.rows])
        return math.inf if worse is None else worse  # what could not be measured is to be looked at first

    return sorted(ids, key=badness, reverse=True)


def _badness(name: str, rows: Sequence[Row]) -> float | None:
    """The mean figure of `rows`, higher for worse; None where there is none."""
    known = [value for row in rows if (value := row.numbers.get(name)) is not None]
    sign = -1 if find_figure(name).higher_is_better else 1
    return sign * sum(known) / len(known) if known else None


def _charts(systems: Sequence[System]) -> list[tuple[Figure, bool, Markup]]:
    """Figure, whether real recordings are marked, and the chart."""
    charts = []
    for figure in map(find_figure, _DISTRIBUTED):
        values = {
            s.name: [v for r in s.rows.values() if (v := r.numbers.get(figure.name)) is not None] for s in systems
        }
        if any(figure.name in row.numbers for system in systems for row in system.rows.values()):
            real = systems[0].context.get(figure.real or "")
            there = {name: row for name, row in values.items() if row}
            charts.append((figure, bool(real), distribution(figure, there, real.value if real else None)))
    return charts


def _voices(systems: Sequence[System]) -> dict[str, tuple[str, Sound | None]]:
    """Speaker and sound of each prompt, by its id: once on the page, where the cards point to."""
    found = {}
    for system in systems:
        for row in system.rows.values():
            id_ = row.texts.get("prompt", "")
            if id_ and id_ not in found and (path := system.prompt(id_)):
                found[id_] = (row.texts["speaker"], load_sound(path))
    return found if len(found) <= _MOST_VOICES else {}


def _card(id_: str, systems: Sequence[System], voiced: bool) -> dict[str, Any]:
    """What every system made of one text."""
    rows = [(system, system.rows[id_]) for system in systems if id_ in system.rows]
    first_system, first = rows[0]
    reference = first_system.reference(id_) if voiced else None
    speaker = first.texts.get("speaker", "")
    return {
        "id": id_,
        "text": first.texts.get("text") or id_,
        "speaker": speaker,
        "prompt": first.texts.get("prompt", ""),
        "about": {
            "sort": {name: _badness(name, [row for _, row in rows]) for name in _SHOWN},
            "id": id_,
            "speaker": speaker,
            "flags": sorted({flag for _, row in rows for flag in _flags(row)}),
        },
        "outputs": [
            {
                "system": system,
                "row": row,
                "sound": load_sound(path) if voiced and (path := system.audio(id_)) else None,
                "remarks": "; ".join(_remarks(row)),
            }
            for system, row in rows
        ],
        "reference": load_sound(reference) if reference else None,
    }


def _flags(row: Row) -> set[str]:
    flags = {flag for flag in ("skipped", "repeated") if row.numbers.get(flag)}
    if row.texts.get("stop_reason") == "max_length":
        flags.add("cut")
    words = row.numbers.get("words")
    if words and row.numbers.get("deletions") == words:
        flags.add("silent")
    return flags


def _remarks(row: Row) -> list[str]:
    remarks = [f"skipped: {words}" for words in [row.texts.get("skipped_words")] if words]
    remarks += [f"said again: {words}" for words in [row.texts.get("repeated_words")] if words]
    remarks += [_FLAGS[flag] for flag in sorted(_flags(row) & {"cut", "silent"})]
    return remarks + [note for note in [row.texts.get("notes")] if note]


def _method(system: System) -> dict[str, str]:
    """What a system's results were made with."""
    results = system.results
    facts = {"seed": results["seed"], **results["config"], "versions": results["versions"]}
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items() if value != ""
    }


def distribution(figure: Figure, values: Mapping[str, Sequence[float]], real: float | None = None) -> Markup:
    """An SVG with a row of stacked dots for each system of `values`; `real`: where real recordings stand.

    One dot for each utterance, so that nothing hides behind a mean.
    """
    low, high = _range([*chain(*values.values()), *([] if real is None else [real])], figure)

    def x(value: float) -> float:
        return 8 + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - 16)

    bases = [_TOP + _ROW * (i + 1) - 4 for i in range(len(values))]
    steps = round((high - low) / 0.25) if figure.percent else 4
    return render(
        "chart.html",
        label=f"{figure.label} of each utterance. "
        + "; ".join(f"{name}: {_quartiles(figure, row)}" for name, row in values.items() if row),
        width=_WIDTH,
        height=_TOP + _ROW * len(values) + _BOTTOM,
        top=_TOP,
        bottom=_TOP + _ROW * len(values),
        radius=_DOT,
        rows=[(name, base, _dots(row, x, base)) for (name, row), base in zip(values.items(), bases, strict=True)],
        real=None if real is None else x(real),
        ticks=[(x(value), figure.tick(value)) for value in (low + (high - low) * i / steps for i in range(steps + 1))],
    )


def _dots(row: Sequence[float], x: Callable[[float], float], base: float) -> list[tuple[float, float]]:
    """Dots stacked upwards from `base` where values fall into one column."""
    step = (_WIDTH - 16) / _BINS
    stacks = Counter(int((x(value) - 8) / step) for value in row)
    # Many in one place overlap rather than leave their row.
    rise = min(2 * _DOT + 0.6, (_ROW - 10) / max(stacks.values(), default=1))
    return [
        (8 + (column + 0.5) * step, base - _DOT - i * rise)
        for column, height in sorted(stacks.items())
        for i in range(height)
    ]


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
