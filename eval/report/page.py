"""One HTML page with all of some results: figures, distributions, and every text with its sound and picture.

The page needs nothing but itself: no network, and no script to be read; the script adds sorting and filters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from valle.eval.figures import Figure, find_figure, in_order
from valle.eval.report.charts import distribution
from valle.eval.report.diff import diff_html
from valle.eval.report.media import Sound, load_sound
from valle.eval.saved_results import Row, System
from valle.eval.stats import Estimate

_HERE = Path(__file__).parent
_DISTRIBUTED = ("wer", "cer", "sim", "sim_reference", "dnsmos", "utmos", "nisqa", "visqol", "pesq", "stoi", "mcd")
_SHOWN = ("wer", "cer", "sim", "sim_reference", "dnsmos", "utmos", "nisqa", "pesq", "stoi", "mcd")
_FLAGS = {
    "skipped": "a word is skipped",
    "repeated": "a word is repeated",
    "cut": "did not come to an end",
    "silent": "nothing was heard",
}
_SECONDS_WIDE = 5.5
"""Width of a second of spectrogram, in rem: all pictures of a page have one time scale."""


def build_page(systems: Sequence[System], title: str, max_sounds: int = 300) -> str:
    """The page for `systems` that were given the same list.

    max_sounds: with more outputs than that, the worst ones have sound and picture, the others only their figures
    """
    ids = _worst_first(systems)
    voiced = set(ids[: max(1, max_sounds // len(systems))])
    cards = "".join(_card(i, id_, systems, id_ in voiced) for i, id_ in enumerate(ids))
    parts = {
        "title": escape(title),
        "css": (_HERE / "report.css").read_text(encoding="utf-8"),
        "js": (_HERE / "report.js").read_text(encoding="utf-8"),
        "lead": _lead(systems, len(ids)),
        "summary": _summary(systems),
        "charts": _charts(systems),
        "voices": _voices(systems),
        "controls": _controls(systems, ids),
        "cards": cards,
        "method": _method(systems),
    }
    page = (_HERE / "report.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part)
    return page


def _worst_first(systems: Sequence[System]) -> list[str]:
    ids = list(dict.fromkeys(id_ for system in systems for id_ in system.rows))
    rank = _ranking(systems)

    def badness(id_: str) -> float:
        known = [v for s in systems if id_ in s.rows and (v := s.rows[id_].numbers.get(rank.name)) is not None]
        if not known:
            return float("inf")  # what could not be measured is to be looked at first
        return sum(known) / len(known) * (-1 if rank.higher_is_better else 1)

    return sorted(ids, key=badness, reverse=True)


def _ranking(systems: Sequence[System]) -> Figure:
    """The figure by which the page is ordered at first."""
    names = {name for system in systems for row in system.rows.values() for name in row.numbers}
    return find_figure(next((name for name in _SHOWN if name in names), "wer"))


def _lead(systems: Sequence[System], n: int) -> str:
    speakers = {row.texts.get("speaker", "") for system in systems for row in system.rows.values()}
    what = "texts" if systems[0].results["kind"] == "tts" else "recordings"
    names = ", ".join(escape(system.name) for system in systems)
    return f"<p>{names}. {n} {what}, {len(speakers)} speakers. Intervals are 95 %, by bootstrap over {what}.</p>"


def _summary(systems: Sequence[System]) -> str:
    names = in_order({name for system in systems for name in system.metrics})
    real = systems[0].context
    head = "".join(f'<th scope="col">{escape(system.name)}</th>' for system in systems)
    head += '<th scope="col">real recordings</th>' if real else ""
    body = []
    for name in names:
        figure = find_figure(name)
        cells = "".join(_cell(figure, system.metrics.get(name)) for system in systems)
        if real:
            cells += _cell(figure, real.get(figure.real or ""))
        better, sign = ("higher is better", "↑") if figure.higher_is_better else ("lower is better", "↓")
        # Titles and arrows are not read aloud, or not by all readers.
        arrow = f'<abbr title="{better}" aria-hidden="true">{sign}</abbr><span class="aloud">, {better}</span>'
        label = f"{escape(figure.label)} {arrow}"
        body.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Table of figures"><table>'
        f'<thead><tr><th scope="col">figure</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _cell(figure: Figure, value: Estimate | None) -> str:
    if value is None or value.value != value.value:
        return "<td>–</td>"
    interval = "" if value.low != value.low else f"<small>{_interval(figure, value)}</small>"
    excluded = f"<small>{value.n} of {value.n + value.excluded}</small>" if value.excluded else ""
    return f"<td><b>{figure.text(value.value)}</b> {interval} {excluded}</td>"


def _interval(figure: Figure, value: Estimate) -> str:
    low, high = figure.text(value.low), figure.text(value.high)
    return f"{low.removesuffix(' %')} to {high}"


def _charts(systems: Sequence[System]) -> str:
    there = {name for system in systems for row in system.rows.values() for name in row.numbers}
    charts = []
    for name in (name for name in _DISTRIBUTED if name in there):
        figure = find_figure(name)
        values = {s.name: [v for r in s.rows.values() if (v := r.numbers.get(name)) is not None] for s in systems}
        real = systems[0].context.get(figure.real or "")
        chart = distribution(figure, {k: v for k, v in values.items() if v}, real.value if real else None)
        note = " The dashed line: real recordings." if real else ""
        charts.append(f"<figure><figcaption><b>{escape(figure.label)}</b>{note}</figcaption>{chart}</figure>")
    return "".join(charts)


def _voices(systems: Sequence[System]) -> str:
    """Each prompt once; the cards point here."""
    found = {}
    for system in systems:
        for row in system.rows.values():
            id_ = row.texts.get("prompt", "")
            if id_ and id_ not in found and (path := system.prompt(id_)):
                found[id_] = (row.texts["speaker"], load_sound(path))
    if not found or len(found) > 40:
        return ""
    figures = "".join(
        f'<figure id="voice-{escape(id_)}"><figcaption>{escape(speaker)}</figcaption>'
        f"{_player(sound, f'prompt {id_}')}</figure>"
        for id_, (speaker, sound) in found.items()
        if sound
    )
    head = '<section aria-labelledby="h-voices"><h2 id="h-voices">Voices</h2>'
    return f'{head}<div class="voices">{figures}</div></section>'


def _controls(systems: Sequence[System], ids: Sequence[str]) -> str:
    rows = [row for system in systems for row in system.rows.values()]
    speakers = sorted({row.texts.get("speaker", "") for row in rows})
    names = [name for name in _SHOWN if any(name in row.numbers for row in rows)]
    sorts = "".join(f'<option value="{name}">{escape(find_figure(name).label)}, worst first</option>' for name in names)
    voices = "".join(f"<option>{escape(speaker)}</option>" for speaker in speakers)
    flags = [flag for flag in _FLAGS if any(flag in _flags(row) for row in rows)]
    boxes = "".join(f'<label><input type="checkbox" name="flag" value="{f}"> {_FLAGS[f]}</label>' for f in flags)
    only = f"<fieldset><legend>Only where</legend>{boxes}</fieldset>" if boxes else ""
    return (
        '<form id="controls" hidden aria-label="Sort and filter">'
        f'<label>Order <select name="sort">{sorts}<option value="id">as listed</option></select></label>'
        f'<label>Voice <select name="speaker"><option value="">all</option>{voices}</select></label>'
        f'<label>Words <input name="words" type="search" placeholder="in text or transcript"></label>{only}'
        f'<output aria-live="polite" id="count">{len(ids)} shown</output></form>'
    )


def _card(number: int, id_: str, systems: Sequence[System], voiced: bool) -> str:
    with_row = [(system, system.rows[id_]) for system in systems if id_ in system.rows]
    first = with_row[0][1]
    text = first.texts.get("text") or id_
    prompt = first.texts.get("prompt", "")
    sort = {}
    for name in _SHOWN:
        known = [v for _, row in with_row if (v := row.numbers.get(name)) is not None]
        sign = -1 if find_figure(name).higher_is_better else 1
        sort[name] = sign * sum(known) / len(known) if known else None
    data = {
        "sort": sort,
        "id": id_,
        "speaker": first.texts.get("speaker", ""),
        "flags": sorted({flag for _, row in with_row for flag in _flags(row)}),
    }
    listen = f' · <a class="voice" href="#voice-{escape(prompt)}">hear the voice</a>' if prompt else ""
    outputs = "".join(_output(system, row, len(systems) > 1, voiced) for system, row in with_row)
    reference = with_row[0][0].reference(id_) if voiced else None
    if reference and (sound := load_sound(reference)):
        outputs += (
            f'<section class="output"><h4>real recording</h4>{_player(sound, f"real recording of {id_}")}</section>'
        )
    return (
        f'<article data-about="{escape(json.dumps(data), quote=True)}" aria-labelledby="t{number}">'
        f'<h3 id="t{number}">{escape(text)}</h3>'
        f'<p class="who">{escape(id_)} · {escape(first.texts.get("speaker", ""))}{listen}</p>{outputs}</article>'
    )


def _output(system: System, row: Row, named: bool, voiced: bool) -> str:
    title = f"<h4>{escape(system.name)}</h4>" if named else ""
    path = system.audio(row.id) if voiced else None
    sound = load_sound(path) if path else None
    player = _player(sound, f"{system.name}: {row.id}") if sound else ""
    scores = "".join(
        f"<div><dt>{escape(find_figure(name).label)}</dt><dd>{find_figure(name).text(row.numbers[name])}</dd></div>"
        for name in _SHOWN
        if name in row.numbers
    )
    diff = row.texts.get("diff")
    heard = f'<p class="diff">{diff_html(diff)}</p>' if diff else ""
    return f'<section class="output">{title}{player}{heard}<dl>{scores}</dl>{_remarks(row)}</section>'


def _player(sound: Sound | None, name: str) -> str:
    if sound is None:
        return ""
    name = escape(name, quote=True)
    return (
        f'<img src="{sound.png_uri}" alt="Spectrogram of {name}, {sound.seconds:.1f} seconds" '
        f'style="width:min(100%,{sound.seconds * _SECONDS_WIDE:.1f}rem)">'
        f'<audio controls preload="none" aria-label="{name}" src="{sound.mp3_uri}"></audio>'
    )


def _flags(row: Row) -> set[str]:
    flags = {flag for flag in ("skipped", "repeated") if row.numbers.get(flag)}
    if row.texts.get("stop_reason") == "max_length":
        flags.add("cut")
    words = row.numbers.get("words")
    if words and row.numbers.get("deletions") == words:
        flags.add("silent")
    return flags


def _remarks(row: Row) -> str:
    remarks = [f"skipped: {words}" for words in [row.texts.get("skipped_words")] if words]
    remarks += [f"said again: {words}" for words in [row.texts.get("repeated_words")] if words]
    remarks += [_FLAGS[flag] for flag in sorted(_flags(row) & {"cut", "silent"})]
    remarks += [note for note in [row.texts.get("notes")] if note]
    return f'<p class="remarks">{escape("; ".join(remarks))}</p>' if remarks else ""


def _method(systems: Sequence[System]) -> str:
    return "".join(
        _facts(s.name, {"seed": s.results["seed"], **s.results["config"], "versions": s.results["versions"]})
        for s in systems
    )


def _facts(name: str, content: dict[str, Any]) -> str:
    """A table of what a system's results were made with."""
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(shown)}</td></tr>'
        for key, value in content.items()
        if (shown := value if isinstance(value, str) else json.dumps(value))
    )
    region = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name, quote=True)}">'
    return f"<h3>{escape(name)}</h3>{region}<table>{rows}</table></div>"
