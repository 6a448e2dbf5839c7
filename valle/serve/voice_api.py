"""`/v1/voices`: what there is, upload, recording, deletion."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel

from valle.serve.errors import bad_request
from valle.serve.openapi import ERROR_RESPONSES
from valle.serve.service import Service
from valle.synthesis.voice_store import CONSENT, new_voice_id


class VoiceFacts(BaseModel):
    """A voice."""

    id: str
    object: str = "voice"
    name: str
    created: int
    seconds: float
    language: str
    transcript: str | None
    builtin: bool
    openai_names: list[str]
    """Names of OpenAI's voices that give this one."""


class NewVoice(VoiceFacts):
    """A voice that was just stored."""

    notes: list[str]
    """What its owner may want to know, such as that the recording is short."""


class AudioVoices(BaseModel):
    """All voices, in the form that clients of servers like OpenAI's look for."""

    voices: list[VoiceFacts]


class VoiceList(BaseModel):
    """All voices, and what one agrees to by storing one."""

    object: str = "list"
    data: list[VoiceFacts]
    consent_statement: str = CONSENT


def voice_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["voices"], responses=ERROR_RESPONSES)

    async def all_voices() -> list[VoiceFacts]:
        return [VoiceFacts(**voice.to_dict()) for voice in await asyncio.to_thread(service.voices.list)]

    @router.get("/v1/voices", summary="List the voices")
    async def list_voices() -> VoiceList:
        return VoiceList(data=await all_voices())

    @router.get("/v1/audio/voices", summary="List the voices, as Open WebUI and others ask for them")
    async def list_audio_voices() -> AudioVoices:
        return AudioVoices(voices=await all_voices())

    @router.post("/v1/voices", status_code=201, summary="Store a voice")
    async def add_voice(
        request: Request,
        file: Annotated[UploadFile, File(description="3 to 30 s of speech: WAV, FLAC, MP3, OGG, WebM, M4A")],
        consent: Annotated[bool, Form(description=f"must be true, which states: {CONSENT}")],
        name: Annotated[str, Form(max_length=100)] = "",
        transcript: Annotated[str | None, Form(max_length=1000, description="what is said in it")] = None,
        language: Annotated[str, Form(max_length=16, description="of the transcript")] = "en-us",
    ) -> NewVoice:
        if not consent:
            raise bad_request(f"consent must be true, which states: {CONSENT}", "consent", "consent_needed")
        wav = await service.uploads.decode(await file.read())
        voice_id = new_voice_id()
        prompt = (wav, service.cloner.sample_rate)
        voice = await service.worker.prepare(voice_id, prompt, transcript or None, language)
        by = request.scope["state"].get("key_name")
        facts = (name.strip() or voice_id, transcript or None, language, by)
        stored = await asyncio.to_thread(service.voices.add, voice_id, *prompt, *facts)
        return NewVoice(**stored.to_dict(), notes=list(voice.notes))

    @router.get("/v1/voices/{voice_id}", summary="One voice")
    async def get_voice(voice_id: str) -> VoiceFacts:
        return VoiceFacts(**(await asyncio.to_thread(service.voices.get, voice_id)).to_dict())

    @router.get("/v1/voices/{voice_id}/recording", summary="The recording of a voice", response_class=FileResponse)
    async def get_recording(voice_id: str) -> FileResponse:
        voice = await asyncio.to_thread(service.voices.get, voice_id)
        return FileResponse(voice.recording, headers={"Cache-Control": "private, max-age=3600"})

    @router.delete("/v1/voices/{voice_id}", status_code=204, summary="Delete a voice")
    async def delete_voice(voice_id: str) -> None:
        await asyncio.to_thread(service.voices.delete, voice_id)

    return router
