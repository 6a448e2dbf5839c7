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
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from valle.common.errors import UserError
from valle.serve.errors import ApiError, bad_request, busy
from valle.serve.limits import Limits
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.engine import Engine
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.prompt import PromptSource, Voice
from valle.synthesis.result import Outcome
from valle.synthesis.utterance import Utterance
from valle.synthesis.voice_store import StoredVoice

_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.responses = Counter("valle_http_responses", "HTTP responses", ["route", "status"], registry=self._registry)
        self.utterances = Counter(
            "valle_utterances", "Requests to speak that came to an end", ["outcome"], registry=self._registry
        )
        self.audio = Counter("valle_audio_seconds", "Speech made, seconds", registry=self._registry)
        self.first_audio = Histogram(
            "valle_first_audio_seconds", "From a request to its first audio", buckets=_SECONDS, registry=self._registry
        )
        self.waiting = Gauge("valle_waiting", "Requests that wait to be spoken", registry=self._registry)
        self.speaking = Gauge("valle_speaking", "Requests that are being spoken", registry=self._registry)
        self.connections = Gauge("valle_websockets", "Open WebSocket connections", registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


CACHED_VOICES = 256
"""Voices kept ready in memory, some 10 kB each."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """A text that waits for its turn or is being spoken, as the event loop sees it.

    stream: give audio while a sentence is being spoken
    """

    text: str
    voice: StoredVoice
    options: SynthesisOptions
    stream: bool
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
    utterance: Utterance | None = None
    _items: asyncio.Queue[np.ndarray | Exception | None] = field(default_factory=asyncio.Queue)

    @property
    def faulty(self) -> list[dict[str, Any]]:
        """The pieces that went wrong (`Outcome.faulty`), once all samples have been given."""
        return self.outcome.faulty if self.outcome else []

    async def chunks(self) -> AsyncGenerator[np.ndarray]:
        """Samples [S] as they come; cancels the ticket when it is closed. Raises `ApiError` where speaking fails."""
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


class Worker:
    """Speaks many texts at once. Its methods are for the event loop.

    worker.start()
    ticket = worker.submit(text, voice, options)
    async for samples in ticket.chunks(): ...
    worker.stop()
    """

    def __init__(self, cloner: VoiceCloner, limits: Limits, metrics: Metrics) -> None:
        self.cloner, self.limits, self.metrics = cloner, limits, metrics
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._stopping = False
        # Of the thread alone:
        self._engine: Engine = cloner.engine(rows=limits.concurrent)
        self._active: list[Ticket] = []
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._usual_seconds = 5.0

    @property
    def alive(self) -> bool:
        """Whether it can speak at all."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Tickets whose turn has not come."""
        return len(self._waiting)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up what is being spoken."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(
        self, text: str, voice: StoredVoice, options: SynthesisOptions, stream: bool = True, goes_on: bool = False
    ) -> Ticket:
        """Queue a text. Raises `ApiError` 429 when too many wait.

        goes_on: somebody has heard the beginning already; it would be wrong to refuse the rest
        """
        with self._changed:
            if not goes_on and len(self._waiting) >= self.limits.waiting:
                turns = 1 + len(self._waiting) // self.limits.concurrent
                self.metrics.utterances.labels("refused").inc()
                raise busy(round(min(60.0, max(1.0, turns * self._usual_seconds))))
            deadline = time.monotonic() + self.limits.request_seconds
            ticket = Ticket(text, voice, options, stream, asyncio.get_running_loop(), deadline)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

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
                for utterance in self._engine.step():
                    self._deliver(next(t for t in self._active if t.utterance is utterance), utterance)
            except Exception:
                # Whatever it was, the next request shall find a server that works.
                _log.exception("speaking failed")
                self._engine = self.cloner.engine(rows=self.limits.concurrent)
                for ticket in list(self._active):
                    ticket.utterance = None  # of an engine that is gone
                    self._end(ticket, "failed", ApiError(500, "internal", "speaking failed; see the server's log"))
        for ticket in [*self._active, *self._waiting]:
            ticket.put(ApiError(503, "stopping", "the server is stopping", retry_after=5))

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
        """Start what waits, in the order in which they came, while there is room."""
        while len(self._active) < self.limits.concurrent:
            with self._changed:
                if not self._waiting:
                    break
                ticket = self._waiting.popleft()
            if ticket.cancelled:
                self.metrics.utterances.labels("cancelled").inc()
                continue
            self._active.append(ticket)
            ticket.started, stored = time.monotonic(), ticket.voice
            try:
                voice = self._voice(stored.id, stored.recording, stored.transcript, stored.language)
                ticket.utterance = self._engine.submit(ticket.text, voice, ticket.options, ticket.stream)
            except UserError as error:
                self._end(ticket, "invalid", bad_request(str(error), "input"))
        self.metrics.waiting.set(len(self._waiting))
        self.metrics.speaking.set(len(self._active))

    def _drop(self) -> None:
        """Take out what nobody wants any more and what takes too long, the waiting ones, too."""
        now = time.monotonic()
        for ticket in list(self._active):
            if ticket.cancelled:
                self._end(ticket, "cancelled", None)
            elif now > ticket.deadline:
                self._end(ticket, "timeout", _too_slow(self.limits))
        with self._changed:
            late = [t for t in self._waiting if t.cancelled or now > t.deadline]
            for ticket in late:
                self._waiting.remove(ticket)
        for ticket in late:
            self.metrics.utterances.labels("cancelled" if ticket.cancelled else "timeout").inc()
            ticket.put(_too_slow(self.limits))

    def _deliver(self, ticket: Ticket, utterance: Utterance) -> None:
        if utterance.error is not None:
            self._end(ticket, "invalid", bad_request(str(utterance.error), "input"))
            return
        for chunk in utterance.take_chunks():
            if len(chunk.wav):
                if not ticket.audible:
                    ticket.audible = True
                    self.metrics.first_audio.observe(time.monotonic() - ticket.asked)
                ticket.put(chunk.wav.numpy())
            if chunk.outcome is not None:
                ticket.outcome = chunk.outcome
                self.metrics.audio.inc(chunk.outcome.seconds)
                took = time.monotonic() - ticket.started
                self._usual_seconds += 0.2 * (took - self._usual_seconds)
                self._end(ticket, "spoken", None)

    def _end(self, ticket: Ticket, outcome: str, error: ApiError | None) -> None:
        if ticket.utterance is not None:
            self._engine.cancel(ticket.utterance)
        self._active.remove(ticket)
        self.metrics.utterances.labels(outcome).inc()
        self.metrics.speaking.set(len(self._active))
        ticket.put(error)

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
