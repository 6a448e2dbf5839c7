"""The job table of `valle clone --jobs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from valle.common.errors import UserError
from valle.common.tables import read_table

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
    jobs: dict[str, Job] = {}
    for number, cells in read_table(table, COLUMNS):
        job = Job(cells["id"], table.parent / cells["prompt"], cells["prompt_text"], cells["text"])
        # The id becomes a file name.
        if not job.id or job.id.startswith(".") or "/" in job.id or "\\" in job.id:
            raise UserError(f"{table}, line {number}: '{job.id}' cannot be an id, which is used as a file name")
        if job.id in jobs:
            raise UserError(f"{table}, line {number}: id '{job.id}' is there twice")
        jobs[job.id] = job
    return list(jobs.values())
