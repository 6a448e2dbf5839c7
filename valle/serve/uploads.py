"""Uploaded recordings: decoded in a process of their own, see `decode_worker`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from valle.serve import decode_worker
from valle.serve.errors import bad_request
from valle.serve.limits import Limits

WALL_SECONDS = 30.0
"""The worker's CPU time is bounded, too; this bounds its waiting."""
AT_ONCE = 2


class UploadDecoder:
    """Turns bytes from strangers into samples."""

    def __init__(self, sample_rate: int, limits: Limits) -> None:
        self.sample_rate, self.limits = sample_rate, limits
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def decode(self, data: bytes, shortest: float | None = None) -> Tensor:
        """Samples [S] at `sample_rate`, of `shortest` seconds or more (default: what a voice needs).

        Raises `ApiError` for what is no recording, or too short or long a one.
        """
        shortest = self.limits.min_upload_seconds if shortest is None else shortest
        async with self._slots:
            code, out, complaint = await self._run(data)
        if code == decode_worker.REFUSED:
            raise bad_request(complaint.decode(errors="replace").strip(), "file", "invalid_audio")
        if code != 0:
            raise bad_request("the file could not be decoded within the limits", "file", "invalid_audio")
        wav = torch.from_numpy(np.frombuffer(out, np.float32).copy())
        seconds = len(wav) / self.sample_rate
        if seconds < shortest:
            longest = self.limits.max_upload_seconds
            message = f"the recording has {seconds:.1f} s; give {shortest:g} to {longest:g} s"
            raise bad_request(message, "file", "invalid_audio")
        return wav

    async def _run(self, data: bytes) -> tuple[int, bytes, bytes]:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(decode_worker.__file__)),
            str(self.sample_rate),
            str(self.limits.max_upload_seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
        )
        try:
            out, complaint = await asyncio.wait_for(worker.communicate(data), WALL_SECONDS)
        except TimeoutError:
            return -1, b"", b""
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        assert worker.returncode is not None
        return worker.returncode, out, complaint
