"""Tables as text: `plain_table` for terminals, `markdown_table` for pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
