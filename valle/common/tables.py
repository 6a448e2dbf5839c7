"""Tables as text: `read_table` for files, `plain_table` for terminals, `markdown_table` for pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from valle.common.errors import UserError


def read_table(path: str | Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a tab-separated file and their line numbers; its first line must name `columns`, in any order.

    More columns may be there; lines without a word are left out, cells lose the space around them.
    Raises `UserError` naming the line that is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"table {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"table {path} is not UTF-8 text; save it as UTF-8") from error
    header = lines[0].split("\t")
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path}, line 1: column '{missing[0]}' is missing; it must name {' '.join(columns)} between tabs"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, but the header has {len(header)}; "
                "separate columns by one tab and keep tabs out of the text"
            )
        rows.append((number, dict(zip(header, map(str.strip, cells), strict=True))))
    if not rows:
        raise UserError(f"{path} has no rows below its header")
    return rows


def plain_table(rows: Iterable[Sequence[object]], align: str = "<") -> str:
    """`rows` of equally many cells, two spaces apart, each column as wide as its widest cell.

    align: "<" or ">" for each column; the last one stands for all that follow
    """
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    padded = [
        [f"{cell:{side}{max(map(len, column))}}" for cell in column]
        for column, side in zip(columns, align.ljust(len(columns), align[-1]), strict=False)
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; cells may hold "|"."""
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (head, *rows)]
    first, *others = (f"| {line} |" for line in lines)
    return "\n".join([first, "|---" * len(head) + "|", *others])
