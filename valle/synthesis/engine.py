"""Many texts at once: `Engine` drives their sentences through one continuously batched decoder."""

from __future__ import annotations

from collections.abc import Sequence

from valle.common.errors import UserError
from valle.lm import ARModel, Decoder, Row, Sampling
from valle.lm.prefills import Prefills
from valle.synthesis.model import Bundle
from valle.synthesis.prompt import Voice
from valle.synthesis.result import SpokenPiece
from valle.synthesis.utterance import Take, Takes, Task

ROWS = 8
"""Sentences spoken at once."""
STREAM_AHEAD = 2
"""Sentences of a stream that are spoken at once: the one that is heard, and the next."""


class Engine:
    """Speaks texts as they come in; each sounds as it would alone.

        task = engine.submit("Any sentence.", voice, stream=True)
        while engine.busy:
            for task in engine.step():
                play(task.take_chunks())

    A step decodes one frame of every sentence that is being spoken, and makes audio where enough frames have come.
    Not safe for use by several threads at once: give it a thread of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        sampling: Sampling | None = None,
        rows: int = ROWS,
        stepper: ARModel | None = None,
        prefills: Prefills | None = None,
    ) -> None:
        self.bundle, self.sampling = bundle, sampling or bundle.sampling
        self.decoder = Decoder(bundle.ar, self.sampling, rows, stepper, prefills)
        self._tasks: list[Task] = []
        self._takes: dict[Row, tuple[Task, Take]] = {}

    @property
    def busy(self) -> bool:
        """Whether any task is not done."""
        return bool(self._tasks)

    def submit(
        self,
        text: str,
        voice: Voice,
        seed: int = 0,
        language: str = "en-us",
        takes: Takes | None = None,
        stream: bool = False,
        known: Sequence[SpokenPiece] = (),
        retry_faulty: bool = False,
    ) -> Task:
        """Ask for `text`. The same arguments give the same speech, whatever else is being spoken.

        stream: make audio while a sentence is being spoken, not after it
        known:  the first pieces of this text, as they were spoken before with the same arguments: they are not again
        retry_faulty: except for the faulty ones, which get as many more takes
        Raises `UserError` for a text that cannot be spoken.
        """
        task = Task(
            self.bundle, self.sampling, text, voice, seed, language, takes or Takes(), stream, known, retry_faulty
        )
        self._tasks.append(task)
        return task

    def cancel(self, task: Task) -> None:
        """Forget a task; its rows are free at once. Nothing happens if it is done."""
        for row, (owner, _) in list(self._takes.items()):
            if owner is task:
                self.decoder.leave(row)
                del self._takes[row]
        if task in self._tasks:
            self._tasks.remove(task)

    def step(self) -> list[Task]:
        """Speak one frame of everything; gives the tasks that have new chunks, or have failed."""
        tasks = list(self._tasks)
        self._fill()
        for row in self.decoder.step():
            task, take = self._takes.pop(row)
            assert row.said is not None
            task.finish(take, row.said)
        for task in tasks:
            if task.error is None:
                task.advance(self.decoder)
            if task.done or task.error is not None:
                self.cancel(task)
        return [task for task in tasks if task.has_chunks or task.error is not None]

    def _fill(self) -> None:
        """Give the free rows to the tasks that have the fewest."""
        waiting = list(self._tasks)
        while self.decoder.free and waiting:
            owners = [owner for owner, _ in self._takes.values()]
            task = min(waiting, key=owners.count)
            try:
                take = task.next_take(STREAM_AHEAD if task.streams else self.decoder.capacity)
            except UserError as error:
                task.error, take = error, None
            if take is None:
                waiting.remove(task)
                continue
            take.row = self.decoder.enter(take.request)
            self._takes[take.row] = (task, take)
