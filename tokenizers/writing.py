"""Writing files: `writing` makes one clear line of what the system refuses, `whole` leaves no half of a file."""

from __future__ import annotations

import os
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


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Gives the place to write what is then at `path`, whole or, if this process fails or is killed, not at all.

    Its name ends as that of `path` does; the folder is made. Raises `UserError` as `writing` does.
    """
    path = Path(path)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
