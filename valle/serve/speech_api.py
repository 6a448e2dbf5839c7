"""`POST /v1/audio/speech`, as OpenAI's clients know it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.types import Send

from valle.serve.encoding import CONTENT_TYPES, NEEDS_LENGTH, WIRE_RATE, audio_encoder, encode_whole
from valle.serve.openapi import ERROR_RESPONSES
from valle.serve.postprocess import MAX_GAIN_DB, MAX_SPEED, MIN_SPEED
from valle.serve.service import Service
from valle.serve.worker import Ticket
from valle.synthesis.options import CANDIDATES, SynthesisOptions

Result = TypeVar("Result")

_NOTHING = np.zeros(0, np.float32)


class VoiceId(BaseModel):
    """OpenAI's other way to name a voice."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(max_length=64)


class SpeechOptions(BaseModel):
    """How to speak; the same over HTTP and WebSocket."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    voice: str | VoiceId = Field(description="id of a voice, see GET /v1/voices, or the name of one of OpenAI's")
    language: str = Field("en-us", max_length=16, description="of the text, such as de, fr-fr, cmn")
    seed: int = Field(0, ge=0, lt=2**31, description="another seed, another reading")
    speed: float = Field(1.0, ge=MIN_SPEED, le=MAX_SPEED, description="tempo; the pitch stays")
    gain_db: float = Field(0.0, ge=-MAX_GAIN_DB, le=MAX_GAIN_DB, description="louder or softer, in dB")
    best_of: int | None = Field(
        None,
        ge=1,
        le=CANDIDATES,
        description="how often each sentence is spoken, to keep the best; with more than once, audio comes sentence by "
        f"sentence. By default {CANDIDATES} where the answer comes as a whole, and 1 where it is streamed",
    )

    @property
    def voice_id(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id

    @property
    def synthesis(self) -> SynthesisOptions:
        return SynthesisOptions(self.seed, self.language, candidates=self.best_of)


class SpeechRequest(SpeechOptions):
    """A text to speak."""

    input: str = Field(min_length=1, description="the text")
    model: str = Field("valle", description="not looked at: a server has one model")
    instructions: str | None = Field(None, description="not looked at: the model takes its manner from the recording")
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = Field(
        "mp3", description=f"all mono, {WIRE_RATE} Hz; pcm: 16 bits, signed, little-endian; opus: in Ogg"
    )
    stream: bool | None = Field(
        None, description="send audio while it is being made; by default for all formats but wav and flac"
    )
    stream_format: Literal["audio", "sse"] = Field(
        "audio", description="sse: server-sent events speech.audio.delta (base64) and speech.audio.done"
    )

    @property
    def streams(self) -> bool:
        """wav and flac state their length at the start, where a stream cannot know it."""
        if self.stream is None:
            return self.stream_format == "sse" or self.response_format not in NEEDS_LENGTH
        return self.stream


def speech_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["speech"])

    @router.post(
        "/v1/audio/speech",
        summary="Speak a text",
        response_class=Response,
        responses={
            200: {"description": "The audio.", "content": {kind: {} for kind in sorted(CONTENT_TYPES.values())}},
            **ERROR_RESPONSES,
        },
    )
    async def create_speech(body: SpeechRequest, request: Request) -> Response:
        ticket = service.submit(body.input, body.voice_id, body.synthesis, body.streams)
        pieces = service.finished(ticket.chunks(), body.speed, body.gain_db)
        kind, headers = CONTENT_TYPES[body.response_format], {"X-Sample-Rate": str(WIRE_RATE)}
        try:
            if not body.streams:
                samples = await unless_gone(request, _all(pieces))
                audio = await asyncio.to_thread(encode_whole, body.response_format, samples)
                headers["X-Faulty-Pieces"] = str(len(ticket.faulty))
                return Response(audio, media_type=kind, headers=headers)
            # An error before the first audio still has a status of its own.
            first = await unless_gone(request, anext(pieces, _NOTHING))
        except ClientDisconnect:
            ticket.cancel()
            raise
        stream = _encoded(first, pieces, body.response_format)
        if body.stream_format == "sse":
            return _ClosingStream(_events(stream, ticket), media_type="text/event-stream", headers=headers)
        return _ClosingStream(stream, media_type=kind, headers=headers)

    return router


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; when the client goes away first, `work` is cancelled and `ClientDisconnect` raised."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.wait((doing, leaving))


class _ClosingStream(StreamingResponse):
    """Closes its iterator at once when the client goes away, not when garbage is collected."""

    async def stream_response(self, send: Send) -> None:
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _all(pieces: AsyncGenerator[np.ndarray]) -> np.ndarray:
    return np.concatenate([_NOTHING, *[samples async for samples in pieces]])


async def _encoded(first: np.ndarray, others: AsyncGenerator[np.ndarray], name: str) -> AsyncGenerator[bytes]:
    async with aclosing(others):
        encoder = audio_encoder(name)
        yield encoder.add(first)
        async for samples in others:
            yield encoder.add(samples)
        yield encoder.end()


async def _events(stream: AsyncGenerator[bytes], ticket: Ticket) -> AsyncGenerator[bytes]:
    async with aclosing(stream):
        async for data in stream:
            if data:
                yield _event("speech.audio.delta", audio=base64.b64encode(data).decode())
        yield _event("speech.audio.done", faulty=ticket.faulty)


def _event(kind: str, **facts: Any) -> bytes:
    return f"data: {json.dumps({'type': kind, **facts})}\n\n".encode()
