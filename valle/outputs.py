"""Output files are tried before the long work, so that an hour's result is not lost to a typo in a path."""

from __future__ import annotations

import contextlib
from pathlib import Path

from valle.tokenizers.errors import UserError
from valle.tokenizers.writing import writing

_made: list[Path] = []
"""Folders that were made for what is still to come."""

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def find_audio(folder: Path, name: str) -> Path | None:
    """The audio file `name` in `folder`, whichever of the suffixes it has."""
    # with_suffix would take ".000" of a name for its suffix.
    return next((path for suffix in AUDIO_SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


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
