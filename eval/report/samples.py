"""A page of samples for a repository or a web site: `write_samples`.

DIR/index.html    the page for browsers, with players
DIR/README.md     the same for places that show Markdown: pictures, transcripts, links to the sounds
DIR/*.mp3, *.png  sounds and pictures, in files of their own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from valle.common.errors import UserError
from valle.common.files import check_folder
from valle.common.tables import markdown_table
from valle.eval.report.media import Sound, load_sound
from valle.eval.report.templates import render
from valle.eval.results import Row, System, find_figure
from valle.eval.stats import Estimate

_SCORES = ("wer", "cer", "sim", "dnsmos")
_COLUMNS = ("all texts [95 %]", "outputs", "real recordings")


def write_samples(system: System, folder: Path, title: str, per_voice: int = 2) -> int:
    """Write a page of samples of `system` into `folder`; returns how many outputs are on it.

    Sounds and pictures of a page that was there before go with it.
    """
    check_folder(folder)
    _remove_page(folder / "index.html")
    rows_of: dict[str, list[Row]] = {}
    for row in system.rows.values():
        rows_of.setdefault(row.texts.get("prompt", ""), []).append(row)
    voices = [_voice(system, prompt, spread_out(rows, per_voice), folder) for prompt, rows in rows_of.items()]
    lines = _lines(system)
    values = {"title": title, "voices": voices, "columns": _COLUMNS, "lines": lines}
    table = markdown_table(_COLUMNS, lines)
    (folder / "index.html").write_text(render("samples.html", **values), encoding="utf-8")
    page = render("samples.md", table=table, **values).rstrip()
    (folder / "README.md").write_text(f"{page}\n", encoding="utf-8")
    return sum(len(voice["outputs"]) for voice in voices)


def _remove_page(page: Path) -> None:
    if page.exists():
        for name in re.findall(r'src="([^"/]+\.(?:mp3|png))"', page.read_text(encoding="utf-8")):
            (page.parent / name).unlink(missing_ok=True)
        page.unlink()


def spread_out(rows: Sequence[Row], n: int) -> list[Row]:
    """`n` of `rows` at even steps from the best to the worst by character errors, both ends included."""
    ordered = sorted(rows, key=lambda row: (row.numbers.get("cer") or 0.0, row.id))
    n = min(n, len(ordered))
    return [ordered[round(i * (len(ordered) - 1) / max(1, n - 1))] for i in range(n)]


def _voice(system: System, prompt: str, rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """A speaker with prompt and outputs; writes their sounds and pictures."""
    path = system.prompt(prompt)
    outputs = []
    for row in rows:
        output = system.audio(row.id)
        if output is None:
            raise UserError(f"{system.folder} has no sound of {row.id}; evaluate again with --out")
        named = [(find_figure(name), row.numbers[name]) for name in _SCORES if name in row.numbers]
        outputs.append(
            {
                "id": row.id,
                "text": row.texts.get("text", row.id),
                "diff": row.texts.get("diff", ""),
                "scores": ", ".join(f"{figure.label} {figure.text(value)}" for figure, value in named),
                "sound": _put(output, folder, row.id),
            }
        )
    speaker = rows[0].texts.get("speaker", "")
    prompt_file = f"prompt-{path.stem}" if path else ""
    sound = _put(path, folder, prompt_file) if path else None
    return {"speaker": speaker, "prompt": prompt_file, "sound": sound, "outputs": outputs}


def _put(path: Path, folder: Path, name: str) -> Sound | None:
    """Write sound and picture of `path` into `folder`."""
    sound = load_sound(path)
    if sound is not None:
        (folder / f"{name}.mp3").write_bytes(sound.mp3)
        (folder / f"{name}.png").write_bytes(sound.png)
    return sound


def _lines(system: System) -> list[tuple[str, str, str]]:
    """A row of the table for each figure: its label, that of the outputs, that of real recordings."""

    def shown(name: str, value: Estimate | None) -> str:
        figure = find_figure(name)
        if value is None:
            return "–"
        return f"{figure.text(value.value)} [{figure.text(value.low)}, {figure.text(value.high)}]"

    names = [name for name in (*_SCORES, "misread") if name in system.metrics]
    return [
        (find_figure(n).label, shown(n, system.metrics[n]), shown(n, system.context.get(find_figure(n).real or "")))
        for n in names
    ]
