"""The WebSocket `/v1/audio/speech`, subprotocol `tts-1.0` (see `protocol`): pieces of text in, Opus packets out."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.types import Message

from valle.serve.encoding import OPUS_PACKET_SECONDS, WIRE_RATE, OpusPackets
from valle.serve.errors import ApiError, bad_request, voice_refused
from valle.serve.protocol import FROM_CLIENT, SUBPROTOCOL, Frame, FrameType, ProtocolError
from valle.serve.service import Service
from valle.serve.speech_api import SpeechOptions
from valle.synthesis.utterance import pause_after
from valle.synthesis.voice_store import VoiceError
from valle.tokenizers.text import split_sentences

TEXT_SECONDS = 120.0
"""An utterance whose text does not go on for so long is given up."""
IDLE_SECONDS = 120.0
"""A connection over which nothing is said is closed after so long."""
CLOSE_PROTOCOL_ERROR = 1002


def websocket_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.websocket("/v1/audio/speech")
    async def speak(socket: WebSocket) -> None:
        if SUBPROTOCOL not in socket.scope["subprotocols"]:
            message = f"this WebSocket speaks the subprotocol {SUBPROTOCOL}; ask for it"
            raise ApiError(400, "subprotocol", message)
        await socket.accept(SUBPROTOCOL)
        with service.metrics.connections.track_inprogress():
            await _Session(socket, service).run()

    return router


class _Session:
    """One connection: one utterance after another."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self.speech: _Speech | None = None

    async def run(self) -> None:
        try:
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._take(Frame.from_bytes(message.get("bytes") or b""))
        except ProtocolError as error:
            await send(self.socket, FrameType.ERROR, {"code": "protocol", "message": str(error)})
            with contextlib.suppress(RuntimeError):
                await self.socket.close(CLOSE_PROTOCOL_ERROR)
        finally:
            if self.speech is not None:
                await self.speech.stop()

    async def _receive(self) -> Message:
        """What the client sends next; its leaving, too, where it says nothing and is told nothing for too long."""
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    return await self.socket.receive()
            except TimeoutError:
                if self.speech is None or self.speech.task.done():
                    await self.socket.close()
                    return {"type": "websocket.disconnect"}

    async def _take(self, frame: Frame) -> None:
        speech = self.speech if self.speech is not None and not self.speech.task.done() else None
        if frame.type not in FROM_CLIENT:
            raise ProtocolError(f"{frame.type.name} is sent by the server only")
        if frame.type is FrameType.START:
            if speech is not None:
                raise ProtocolError("START before the utterance before was DONE")
            self.speech = _Speech(self.socket, self.service, frame.payload)
        elif speech is None:
            pass  # it crossed our ERROR or DONE on the way
        elif frame.type is FrameType.TEXT:
            speech.add_text(frame.payload)
        elif frame.type is FrameType.END:
            speech.end_text()
        else:
            await speech.stop()


class _Speech:
    """One utterance: from START to DONE or ERROR."""

    def __init__(self, socket: WebSocket, service: Service, start: bytes) -> None:
        self.socket, self.service = socket, service
        self._text, self._characters, self._complete = "", 0, False
        self._sent = 0
        """Packets."""
        self._faulty: list[dict[str, Any]] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(start))

    def add_text(self, payload: bytes) -> None:
        """More of the text; a character may be cut in two. Raises `ProtocolError`."""
        if self._complete:
            raise ProtocolError("TEXT after END")
        try:
            text = self._decoder.decode(payload)
        except UnicodeDecodeError as error:
            raise ProtocolError("TEXT is not UTF-8") from error
        self._characters += len(text)
        # Beyond the limit it is only counted: `_sentences` refuses it when it looks again.
        if self._characters <= self.service.limits.text_characters:
            self._text += text
        self._changed.set()

    def end_text(self) -> None:
        self._complete = True
        self._changed.set()

    async def stop(self) -> None:
        """Stop speaking, and say so if anybody still listens."""
        self.task.cancel()
        await asyncio.wait((self.task,))
        if self.task.cancelled():
            await self._done(cancelled=True)

    async def _run(self, start: bytes) -> None:
        packets = OpusPackets()
        try:
            options = self._options(start)
            ready = {"sample_rate": WIRE_RATE, "packet_ms": round(1000 * OPUS_PACKET_SECONDS)}
            await send(self.socket, FrameType.READY, {"request_id": self.socket.scope["state"]["request_id"], **ready})
            spoken = self.service.finished(self._samples(options), options.speed, options.gain_db)
            async with aclosing(spoken):
                async for samples in spoken:
                    await self._send_packets(packets.add(samples))
            await self._send_packets(packets.end())
            await self._done(cancelled=False)
        except (ApiError, VoiceError) as error:
            facts = (error if isinstance(error, ApiError) else voice_refused(error)).to_dict()["error"]
            await send(self.socket, FrameType.ERROR, {name: facts[name] for name in facts if name != "type"})

    def _options(self, start: bytes) -> SpeechOptions:
        try:
            options = SpeechOptions.model_validate_json(start)
        except ValidationError as error:
            first = error.errors()[0]
            raise bad_request(f"START: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        self.service.voices.get(options.voice_id)
        return options

    async def _samples(self, options: SpeechOptions) -> AsyncGenerator[np.ndarray]:
        """All sentences, one group after another, with pauses between them."""
        rate, pause = self.service.cloner.sample_rate, 0.0
        async with aclosing(self._sentences()) as sentences:
            async for text in sentences:
                if pause:
                    yield np.zeros(round(pause * rate), np.float32)
                ticket = self.service.submit(text, options.voice_id, options.synthesis, goes_on=bool(pause))
                async with aclosing(ticket.chunks()) as chunks:
                    async for samples in chunks:
                        yield samples
                self._faulty += [{name: fault[name] for name in ("text", "fault")} for fault in ticket.faulty]
                pause = pause_after(text)

    async def _sentences(self) -> AsyncGenerator[str]:
        """What can be spoken by now: all but the last sentence, which may go on until END."""
        while not self._complete:
            try:
                async with asyncio.timeout(TEXT_SECONDS):
                    await self._changed.wait()
            except TimeoutError as error:
                raise ApiError(408, "timeout", f"no text came for {TEXT_SECONDS:g} s") from error
            self._changed.clear()
            self._check_length()
            sentences = split_sentences(self._text)
            begin = self._text.rfind(sentences[-1]) if len(sentences) > 1 else 0
            if begin > 0:
                ready, self._text = self._text[:begin], self._text[begin:]
                yield ready
        self._check_length()
        if self._text.strip():
            yield self._text

    def _check_length(self) -> None:
        most = self.service.limits.text_characters
        if self._characters > most:
            raise bad_request(f"the text is longer than {most:,} characters", "text", "text_too_long")

    async def _send_packets(self, packets: list[bytes]) -> None:
        for packet in packets:
            await self.socket.send_bytes(Frame(FrameType.AUDIO, packet).to_bytes())
            self._sent += 1

    async def _done(self, cancelled: bool) -> None:
        seconds = round(self._sent * OPUS_PACKET_SECONDS, 3)
        facts = {"seconds": seconds, "cancelled": cancelled, "faulty": self._faulty}
        await send(self.socket, FrameType.DONE, facts)


async def send(socket: WebSocket, kind: FrameType, facts: dict[str, Any]) -> None:
    """A frame with JSON; nothing happens if the client has gone."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_bytes(Frame(kind, json.dumps(facts).encode()).to_bytes())
