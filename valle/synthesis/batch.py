"""A table of jobs through one engine, as `valle clone --jobs` speaks it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from valle.common.device import computing_with
from valle.common.errors import UserError
from valle.common.tables import read_table
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.engine import ROWS
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.prompt import Voice
from valle.synthesis.result import Speech
from valle.synthesis.utterance import Utterance

COLUMNS = ("id", "prompt", "prompt_text", "text")
_VOICES_KEPT = 64


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


def speak_jobs(
    cloner: VoiceCloner,
    jobs: Sequence[Job],
    options: SynthesisOptions = SynthesisOptions(),
    rows: int = ROWS,
    loudness: float | None = None,
) -> Iterator[tuple[Job, Speech | UserError]]:
    """Each job with its speech, or with why there is none, in the order in which they are done.

    Finished sentences leave the batch and others enter it at once; every job gives what it gives alone.
    """
    engine, waiting = cloner.engine(options.sampling, rows), deque(jobs)
    running: dict[Utterance, Job] = {}
    voices: dict[tuple[Path, str], Voice] = {}
    with computing_with(cloner.threads):
        while waiting or running:
            # One job for each row keeps all rows busy, and no more than that in memory.
            while waiting and len(running) < rows:
                job = waiting.popleft()
                key = (job.prompt, job.prompt_text)
                try:
                    if key not in voices:
                        voices[key] = cloner.make_voice(job.prompt, job.prompt_text or None, options.language, loudness)
                    running[engine.submit(job.text, voices[key], options)] = job
                except UserError as error:
                    yield job, error
                if len(voices) > _VOICES_KEPT:
                    del voices[next(iter(voices))]
            engine.step()
            for utterance in [u for u in running if u.done or u.error is not None]:
                yield running.pop(utterance), utterance.error or utterance.speech()
