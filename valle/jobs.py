"""The job table of `valle clone --jobs`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from valle.tokenizers.errors import UserError

COLUMNS = ("id", "prompt", "prompt_text", "text")


@dataclass(frozen=True)
class Job:
    """One row: speak `text` in the voice of `prompt`."""

    id: str
    prompt: Path
    prompt_text: str
    """May be empty: cloned without the transcript."""
    text: str


def read_jobs(table: str | Path) -> list[Job]:
    """Rows of a tab-separated table with a header naming `id prompt prompt_text text`, in any order.

    A prompt's path is relative to the table. Raises `UserError` naming the line that is wrong.
    """
    table = Path(table)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise UserError(f"job table {table} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"job table {table} is not UTF-8 text; save it as UTF-8") from error
    header = rows[0] if rows else []
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise UserError(f"{table}, line 1: column '{missing[0]}' is missing; the header must name {' '.join(COLUMNS)}")
    jobs: dict[str, Job] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise UserError(f"{table}, line {number}: {len(row)} columns, but the header has {len(header)}")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        job = Job(cells["id"], table.parent / cells["prompt"], cells["prompt_text"], cells["text"])
        # The id becomes a file name.
        if not job.id or job.id.startswith(".") or "/" in job.id or "\\" in job.id:
            raise UserError(f"{table}, line {number}: '{job.id}' cannot be an id, which is used as a file name")
        if job.id in jobs:
            raise UserError(f"{table}, line {number}: id '{job.id}' is there twice")
        jobs[job.id] = job
    if not jobs:
        raise UserError(f"{table} has no jobs below its header")
    return list(jobs.values())
