"""What the system refuses to write, because the disk is full, say, becomes one clear line: `writing`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from valle.tokenizers.errors import UserError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Write a file or folder within it; raises `UserError` naming `path` where that fails."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own type for what the system refuses, too
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}; make room, or choose another place") from error
