"""Checkpoints of training runs: found again, and read without running code from them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from valle.common.errors import UserError

WEIGHTS = "weights.ckpt"
"""The file with the whole weights and all facts, in a checkpoint that is a folder (see `valle.training.deepspeed`)."""

_NAME = re.compile(r"step=(\d+)\.ckpt")


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` with their steps, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step=*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint with the most steps that is not damaged; None when there is none."""
    return next((path for _, path in reversed(numbered(folder)) if is_whole(path)), None)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end; the directory of a zip file stands there."""
    files = [path / WEIGHTS, *path.rglob("*.pt")] if path.is_dir() else [path]
    return all(zipfile.is_zipfile(file) for file in files)


def find_checkpoint(path: str | Path) -> Path:
    """`path` if it is a checkpoint, the newest whole one in it if it is the folder of a run."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder of a run of 'valle train', or a checkpoint")
    found = newest_whole(path) if path.is_dir() and not (path / WEIGHTS).exists() else path
    if found is None:
        raise UserError(f"{path} holds no checkpoint (step=*.ckpt)")
    return found


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, or the newest one of a run, without running code from it."""
    path = find_checkpoint(path)
    if path.is_dir():
        path = path / WEIGHTS
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for files that are damaged or something else
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is no whole checkpoint of 'valle train': {reason}") from error
