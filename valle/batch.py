"""A list of jobs through one engine: `speak_jobs`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from valle.cloner import VoiceCloner
from valle.common.device import computing_with
from valle.common.errors import UserError
from valle.engine import ROWS
from valle.jobs import Job
from valle.lm import Sampling
from valle.pieces import Takes
from valle.speech import Speech
from valle.task import Task
from valle.voice import Voice

_VOICES_KEPT = 64


def speak_jobs(
    cloner: VoiceCloner,
    jobs: Sequence[Job],
    seed: int = 0,
    sampling: Sampling | None = None,
    language: str = "en-us",
    takes: Takes | None = None,
    rows: int = ROWS,
    loudness: float | None = None,
) -> Iterator[tuple[Job, Speech | UserError]]:
    """Each job with its speech, or with why there is none, in the order in which they are done.

    Finished sentences leave the batch and others enter it at once; every job gives what it gives alone with `seed`.
    """
    engine, waiting = cloner.engine(sampling, rows), deque(jobs)
    running: dict[Task, Job] = {}
    voices: dict[tuple[Path, str], Voice] = {}
    with computing_with(cloner.threads):
        while waiting or running:
            # One job for each row keeps all rows busy, and no more than that in memory.
            while waiting and len(running) < rows:
                job = waiting.popleft()
                key = (job.prompt, job.prompt_text)
                try:
                    if key not in voices:
                        voices[key] = cloner.make_voice(job.prompt, job.prompt_text or None, language, loudness)
                    running[engine.submit(job.text, voices[key], seed, language, takes)] = job
                except UserError as error:
                    yield job, error
                if len(voices) > _VOICES_KEPT:
                    del voices[next(iter(voices))]
            engine.step()
            for task in [task for task in running if task.done or task.error is not None]:
                yield running.pop(task), task.error or task.speech()
