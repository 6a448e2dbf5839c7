"""Health, metrics, models, and the page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import FileResponse

from valle import __version__
from valle.serve.errors import ApiError
from valle.serve.openapi import ERROR_RESPONSES
from valle.serve.service import Service
from valle.synthesis.prompt import load_prompt

PAGE = Path(__file__).parent / "page"
# Everything the page uses is on this server.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' blob:",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def system_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["system"], responses=ERROR_RESPONSES)

    @router.get("/healthz", summary="Whether it works")
    async def health() -> dict[str, Any]:
        if not service.worker.alive:
            raise ApiError(503, "dead", "the thread that speaks has ended; restart the server")
        return {"status": "ok", "version": __version__}

    @router.get("/metrics", summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/models", summary="The one model")
    async def models() -> dict[str, Any]:
        model = {"id": "valle", "object": "model", "created": 0, "owned_by": "valle"}
        return {"object": "list", "data": [model]}

    @router.post("/v1/check", summary="How a result compares to its voice and its text")
    async def check(
        file: Annotated[UploadFile, File(description="what was spoken, 30 s at most")],
        voice: Annotated[str, Form(max_length=64)],
        text: Annotated[str, Form(max_length=4096)],
    ) -> dict[str, Any]:
        if service.checker is None:
            raise ApiError(404, "no_checks", "this server was started without --check")
        stored = await asyncio.to_thread(service.voices.get, voice)
        rate = service.cloner.sample_rate
        speech = await service.uploads.decode(await file.read(), shortest=0.0)
        prompt = await asyncio.to_thread(load_prompt, stored.recording, rate)
        return await service.check(speech, prompt.wav, text)

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    @router.get("/page/config.json", include_in_schema=False)
    async def page_config() -> dict[str, Any]:
        limits = service.limits
        return {
            "checks": service.checker is not None,
            "textCharacters": limits.text_characters,
            "minSeconds": limits.min_upload_seconds,
            "maxSeconds": limits.max_upload_seconds,
        }

    return router
