"""Writing files: `writing` makes one clear line of what the system refuses, `whole` leaves no half of a file.

`check_writable` and `check_folder` try a place before the long work, so that an hour's result is not lost to a typo.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from valle.common.errors import UserError

_made: list[Path] = []
"""Folders that were made for what is still to come."""


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


def check_writable(path: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """Make sure that `path` can be written and ends as wanted; creates its folder. Raises `UserError`."""
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"cannot write {path}: its name must end in {' or '.join(suffixes)}")
    existed = path.exists()
    _made.extend(folder for folder in reversed(path.parents) if not folder.exists())
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Permission bits say nothing of read-only or full file systems; only trying does.
        path.open("ab").close()
    if not existed:
        path.unlink()
    return path


def remove_unused_folders() -> None:
    """Take back the folders that were made here and into which nothing was written, as when a command has failed."""
    while _made:
        with contextlib.suppress(OSError):  # it holds something, or is gone
            _made.pop().rmdir()


def check_folder(folder: str | Path) -> Path:
    """Make sure that files can be written into `folder`; creates it. Raises `UserError`."""
    folder = Path(folder)
    for place in (folder, *folder.parents):
        if place.is_file():
            raise UserError(f"cannot write into {folder}: {place} is a file; name a folder")
    check_writable(folder / ".valle-write-test")
    return folder
