"""The one thread that computes: it drives the batching engine; everything else only waits for it.

Shapes: S samples.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from valle.common.errors import UserError
from valle.serve.errors import ApiError, bad_request, busy
from valle.serve.limits import Limits
from valle.serve.metrics import Metrics
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.engine import Engine
from valle.synthesis.prompt import PromptSource, Voice
from valle.synthesis.result import Outcome
from valle.synthesis.utterance import Takes, Task
from valle.synthesis.voice_store import StoredVoice

CACHED_VOICES = 256
"""Voices kept ready in memory, some 10 kB each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What to say."""

    text: str
    voice: StoredVoice
    language: str = "en-us"
    seed: int = 0
    stream: bool = True
    """Give audio while a sentence is being spoken."""
    best_of: int = 1
    """Takes of each sentence, the best of which is kept."""


@dataclass(eq=False)
class Utterance:
    """A wish on its way, as the event loop sees it."""

    wish: Wish
    loop: asyncio.AbstractEventLoop
    deadline: float
    """On the clock of `time.monotonic`."""
    asked: float = field(default_factory=time.monotonic)
    started: float = 0.0
    """When its turn came."""
    audible: bool = False
    """Whether any samples were given."""
    cancelled: bool = False
    outcome: Outcome | None = None
    """How it went, once all samples have been given."""
    task: Task | None = None
    _items: asyncio.Queue[np.ndarray | Exception | None] = field(default_factory=asyncio.Queue)

    @property
    def faulty(self) -> list[dict[str, Any]]:
        """The pieces that went wrong (`Outcome.faulty`), once all samples have been given."""
        return self.outcome.faulty if self.outcome else []

    async def chunks(self) -> AsyncGenerator[np.ndarray]:
        """Samples [S] as they come; cancels the utterance when it is closed. Raises `ApiError` where speaking fails."""
        try:
            while (item := await self._items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody listens any more; does nothing at the end."""
        self.cancelled = True

    def put(self, item: np.ndarray | Exception | None) -> None:
        """Called by the thread."""
        _tell(self.loop, self._items.put_nowait, item)


class Speaker:
    """Speaks many utterances at once. Its methods are for the event loop.

    speaker.start()
    utterance = speaker.submit(wish)
    async for samples in utterance.chunks(): ...
    speaker.stop()
    """

    def __init__(self, cloner: VoiceCloner, limits: Limits, metrics: Metrics) -> None:
        self.cloner, self.limits, self.metrics = cloner, limits, metrics
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)
        self._changed = threading.Condition()
        self._waiting: deque[Utterance] = deque()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._stopping = False
        # Of the thread alone:
        self._engine: Engine = cloner.engine(rows=limits.concurrent)
        self._active: list[Utterance] = []
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._usual_seconds = 5.0

    @property
    def alive(self) -> bool:
        """Whether it can speak at all."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Utterances whose turn has not come."""
        return len(self._waiting)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up what is being spoken."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, wish: Wish, goes_on: bool = False) -> Utterance:
        """Queue a wish. Raises `ApiError` 429 when too many wait.

        goes_on: somebody has heard the beginning already; it would be wrong to refuse the rest
        """
        with self._changed:
            if not goes_on and len(self._waiting) >= self.limits.waiting:
                turns = 1 + len(self._waiting) // self.limits.concurrent
                self.metrics.utterances.labels("refused").inc()
                raise busy(round(min(60.0, max(1.0, turns * self._usual_seconds))))
            deadline = time.monotonic() + self.limits.request_seconds
            utterance = Utterance(wish, asyncio.get_running_loop(), deadline)
            self._waiting.append(utterance)
            self._changed.notify()
        return utterance

    async def prepare(self, voice_id: str, prompt: PromptSource, transcript: str | None, language: str) -> Voice:
        """A new voice, ready for use. Raises `ApiError` for a recording that cannot be one."""
        future = asyncio.get_running_loop().create_future()
        with self._changed:
            self._calls.append((lambda: self._voice(voice_id, prompt, transcript, language), future))
            self._changed.notify()
        try:
            return await future
        except UserError as error:
            raise bad_request(str(error), "file", "invalid_audio") from error

    def _run(self) -> None:
        torch.set_num_threads(self.cloner.threads)
        while self._wait_for_work():
            try:
                self._answer_calls()
                self._admit()
                self._drop()
                for task in self._engine.step():
                    self._deliver(next(u for u in self._active if u.task is task), task)
            except Exception:
                # Whatever it was, the next request shall find a server that works.
                _log.exception("speaking failed")
                self._engine = self.cloner.engine(rows=self.limits.concurrent)
                for utterance in list(self._active):
                    utterance.task = None  # of an engine that is gone
                    self._end(utterance, "failed", ApiError(500, "internal", "speaking failed; see the server's log"))
        for utterance in [*self._active, *self._waiting]:
            utterance.put(ApiError(503, "stopping", "the server is stopping", retry_after=5))

    def _wait_for_work(self) -> bool:
        """False: stop."""
        with self._changed:
            while not (self._stopping or self._waiting or self._calls or self._engine.busy):
                self._changed.wait()
            return not self._stopping

    def _answer_calls(self) -> None:
        while self._calls:
            call, future = self._calls.popleft()
            try:
                result, failure = call(), None
            except Exception as error:
                result, failure = None, error
            _tell(future.get_loop(), _settle, future, result, failure)

    def _admit(self) -> None:
        """Start utterances, in the order in which they came, while there is room."""
        while len(self._active) < self.limits.concurrent:
            with self._changed:
                if not self._waiting:
                    break
                utterance = self._waiting.popleft()
            if utterance.cancelled:
                self.metrics.utterances.labels("cancelled").inc()
                continue
            self._active.append(utterance)
            wish, utterance.started = utterance.wish, time.monotonic()
            try:
                stored = wish.voice
                voice = self._voice(stored.id, stored.recording, stored.transcript, stored.language)
                takes = Takes(wish.best_of)
                utterance.task = self._engine.submit(wish.text, voice, wish.seed, wish.language, takes, wish.stream)
            except UserError as error:
                self._end(utterance, "invalid", bad_request(str(error), "input"))
        self.metrics.waiting.set(len(self._waiting))
        self.metrics.speaking.set(len(self._active))

    def _drop(self) -> None:
        """Take out what nobody wants any more and what takes too long, the waiting ones, too."""
        now = time.monotonic()
        for utterance in list(self._active):
            if utterance.cancelled:
                self._end(utterance, "cancelled", None)
            elif now > utterance.deadline:
                self._end(utterance, "timeout", _too_slow(self.limits))
        with self._changed:
            late = [u for u in self._waiting if u.cancelled or now > u.deadline]
            for utterance in late:
                self._waiting.remove(utterance)
        for utterance in late:
            self.metrics.utterances.labels("cancelled" if utterance.cancelled else "timeout").inc()
            utterance.put(_too_slow(self.limits))

    def _deliver(self, utterance: Utterance, task: Task) -> None:
        if task.error is not None:
            self._end(utterance, "invalid", bad_request(str(task.error), "input"))
            return
        for chunk in task.take_chunks():
            if len(chunk.wav):
                if not utterance.audible:
                    utterance.audible = True
                    self.metrics.first_audio.observe(time.monotonic() - utterance.asked)
                utterance.put(chunk.wav.numpy())
            if chunk.outcome is not None:
                utterance.outcome = chunk.outcome
                self.metrics.audio.inc(chunk.outcome.seconds)
                took = time.monotonic() - utterance.started
                self._usual_seconds += 0.2 * (took - self._usual_seconds)
                self._end(utterance, "spoken", None)

    def _end(self, utterance: Utterance, outcome: str, error: ApiError | None) -> None:
        if utterance.task is not None:
            self._engine.cancel(utterance.task)
        self._active.remove(utterance)
        self.metrics.utterances.labels(outcome).inc()
        self.metrics.speaking.set(len(self._active))
        utterance.put(error)

    def _voice(self, voice_id: str, prompt: PromptSource, transcript: str | None, language: str) -> Voice:
        """From memory, if it was used lately."""
        voice = self._voices.pop(voice_id, None) or self.cloner.make_voice(prompt, transcript, language)
        self._voices[voice_id] = voice
        if len(self._voices) > CACHED_VOICES:
            self._voices.popitem(last=False)
        return voice


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(call, *arguments)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _too_slow(limits: Limits) -> ApiError:
    return ApiError(408, "timeout", f"speaking took longer than the {limits.request_seconds:g} s of a request")
