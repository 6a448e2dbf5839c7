"""A page of samples for a repository or a web site: `write_samples`.

DIR/index.html    the page for browsers, with players
DIR/README.md     the same for places that show Markdown: pictures, transcripts, links to the sounds
DIR/*.mp3, *.png  sounds and pictures, in files of their own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from valle.common.errors import UserError
from valle.common.files import check_folder
from valle.common.tables import markdown_table
from valle.eval.figures import find_figure
from valle.eval.report.diff import diff_html
from valle.eval.report.media import load_sound
from valle.eval.saved_results import Row, System
from valle.eval.stats import Estimate

_SCORES = ("wer", "cer", "sim", "dnsmos")
_HERE = Path(__file__).parent / "report"
_CHOSEN = (
    "For each voice, texts at even steps from the best to the worst by character errors: neither picked nor lucky. "
    "Marked in a transcript: what the recogniser missed and what it heard instead."
)


def write_samples(system: System, folder: Path, title: str, per_voice: int = 2) -> int:
    """Write a page of samples of `system` into `folder`; returns how many outputs are on it.

    Sounds and pictures of a page that was there before go with it.
    """
    check_folder(folder)
    _remove_page(folder / "index.html")
    voices: dict[str, list[Row]] = {}
    for row in system.rows.values():
        voices.setdefault(row.texts.get("prompt", ""), []).append(row)
    html = [f"<h1>{escape(title)}</h1><p>{escape(_CHOSEN)}</p>", _figures_html(system)]
    markdown = [f"# {title}", _CHOSEN, _figures_markdown(system), "[With players](index.html)"]
    count = 0
    for prompt, rows in voices.items():
        speaker = rows[0].texts.get("speaker", "")
        html.append(f"<section><h2>Voice {escape(speaker)}</h2>")
        markdown.append(f"## Voice {speaker}")
        if path := system.prompt(prompt):
            html.append(_sound(path, folder, "prompt", html=True))
            markdown.append(_sound(path, folder, "prompt", html=False))
        for row in spread_out(rows, per_voice):
            output = system.audio(row.id)
            if output is None:
                raise UserError(f"{system.folder} has no sound of {row.id}; evaluate again with --out")
            text, diff = row.texts.get("text", row.id), row.texts.get("diff", "")
            scores = ", ".join(
                f"{find_figure(n).label} {find_figure(n).text(row.numbers[n])}" for n in _SCORES if n in row.numbers
            )
            html.append(
                f"<article><h3>{escape(text)}</h3>{_sound(output, folder, row.id, html=True)}"
                f'<p class="diff">{diff_html(diff)}</p><p class="who">{escape(scores)}</p></article>'
            )
            markdown += [
                f"**{text}**",
                _sound(output, folder, row.id, html=False),
                f"Heard: {_marked(diff)}",
                f"*{scores}*",
            ]
            count += 1
        html.append("</section>")
    css = (_HERE / "report.css").read_text(encoding="utf-8")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    head += f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head>'
    (folder / "index.html").write_text(f"{head}<body>{''.join(html)}</body></html>\n", encoding="utf-8")
    (folder / "README.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
    return count


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


def _sound(path: Path, folder: Path, name: str, html: bool) -> str:
    """Write sound and picture into `folder` and point to them."""
    sound = load_sound(path)
    if sound is None:
        return ""
    stem = path.stem if name == "prompt" else name
    stem = f"prompt-{stem}" if name == "prompt" else stem
    (folder / f"{stem}.mp3").write_bytes(sound.mp3)
    (folder / f"{stem}.png").write_bytes(sound.png)
    alt = f"Spectrogram of {name}, {sound.seconds:.1f} seconds"
    if not html:
        return f"![{alt}]({stem}.png)\n\n[{'listen to the prompt' if name == 'prompt' else 'listen'}]({stem}.mp3)"
    label = escape(f"{name}", quote=True)
    return (
        f'<img src="{stem}.png" alt="{escape(alt, quote=True)}" style="width:min(100%,{sound.seconds * 5.5:.1f}rem)">'
        f'<audio controls preload="none" aria-label="{label}" src="{stem}.mp3"></audio>'
    )


def _marked(diff: str) -> str:
    """Markdown of a difference: ~~missing~~ and **heard**."""
    return diff.replace("[-", "~~").replace("-]", "~~").replace("{+", "**").replace("+}", "**")


def _lines(system: System) -> list[tuple[str, str, str]]:
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


def _figures_html(system: System) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(a)}</th><td>{b}</td><td>{c}</td></tr>' for a, b, c in _lines(system))
    head = '<th scope="col">all texts [95 %]</th><th scope="col">outputs</th><th scope="col">real recordings</th>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _figures_markdown(system: System) -> str:
    return markdown_table(["all texts [95 %]", "outputs", "real recordings"], _lines(system))
