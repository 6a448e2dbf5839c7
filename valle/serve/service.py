"""What all routes share: the parts of one server, and the steps from a request to finished audio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from valle.serve.auth import ApiKeys
from valle.serve.errors import bad_request
from valle.serve.limits import Limits
from valle.serve.postprocess import Finisher, Finishing
from valle.serve.uploads import UploadDecoder
from valle.serve.worker import Metrics, Ticket, Worker
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.voice_store import VoiceStore

Checker = Callable[[Tensor, Tensor, int, str], dict[str, Any]]
"""`checker(speech, prompt, sample_rate, text)`, each [S]: what can be measured of a clone, for people to see."""


@dataclass
class Service:
    """One server."""

    cloner: VoiceCloner
    voices: VoiceStore
    worker: Worker
    uploads: UploadDecoder
    metrics: Metrics
    limits: Limits
    keys: ApiKeys
    watermark_key: str | None = None
    checker: Checker | None = None
    _checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @classmethod
    def build(
        cls,
        cloner: VoiceCloner,
        voices: VoiceStore,
        limits: Limits,
        keys: ApiKeys,
        watermark_key: str | None = None,
        checker: Checker | None = None,
    ) -> Service:
        """A server that is ready; `worker.start()` makes it speak."""
        metrics = Metrics()
        worker = Worker(cloner, limits, metrics)
        uploads = UploadDecoder(cloner.sample_rate, limits)
        return cls(cloner, voices, worker, uploads, metrics, limits, keys, watermark_key, checker)

    def submit(
        self, text: str, voice: str, options: SynthesisOptions, stream: bool = True, goes_on: bool = False
    ) -> Ticket:
        """Queue a text (`Worker.submit`). Raises `ApiError` and `VoiceError` where that is not granted."""
        if len(text) > self.limits.text_characters:
            raise bad_request(
                f"the text has {len(text):,} characters; give at most {self.limits.text_characters:,} at a time",
                "input",
                "text_too_long",
            )
        return self.worker.submit(text, self.voices.get(voice), options, stream, goes_on)

    async def finished(
        self, chunks: AsyncGenerator[np.ndarray], speed: float, gain_db: float
    ) -> AsyncGenerator[np.ndarray]:
        """Samples [S] at the wire's rate, never an empty piece; closes `chunks`."""
        finisher = Finisher(self.cloner.sample_rate, Finishing(speed, gain_db, self.watermark_key))
        async with aclosing(chunks):
            async for samples in chunks:
                if len(samples := finisher.add(samples)):
                    yield samples
            if len(samples := finisher.end()):
                yield samples

    async def check(self, speech: Tensor, prompt: Tensor, text: str) -> dict[str, Any]:
        """What `checker` finds; one at a time, since it computes much."""
        assert self.checker is not None
        async with self._checking:
            return await asyncio.to_thread(self.checker, speech, prompt, self.cloner.sample_rate, text)
