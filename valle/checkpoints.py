"""Checkpoints of training runs: written whole or not at all, found again, and exact enough to continue from."""

from __future__ import annotations

import os
import random
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from valle.tokenizers.errors import UserError

_NAME = re.compile(r"step=(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and renames: a killed run leaves no half-written checkpoint under that name."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


class Checkpoints(Checkpoint):
    """Saves the run every so many minutes or steps and at its end; keeps the newest `keep` checkpoints.

    Not Lightning's `ModelCheckpoint`, whose step count misses its multiples when one batch makes two optimizer steps.
    """

    def __init__(self, folder: Path, minutes: float, steps: int | None, keep: int) -> None:
        self.folder = folder
        self.minutes = minutes
        self.steps = steps
        self.keep = keep
        self.saved_at = time.monotonic()
        self.batches = 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.batches += 1
        due = time.monotonic() - self.saved_at >= 60 * self.minutes
        if self.steps is not None:
            due = self.batches % self.steps == 0
        # Saving is a joint act of all ranks, whose clocks differ.
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")
        self.saved_at = time.monotonic()
        if trainer.is_global_zero:
            for _, path in numbered(self.folder)[: -self.keep]:
                path.unlink()


class RandomState(L.Callback):
    """Keeps the state of the random generators, which Lightning does not."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        version, numbers, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "python": [version, list(numbers), gauss],
            # Plain types only, so that the checkpoint can be read without running code from it.
            "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": cuda,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_train_batch_start(self, *_: Any) -> None:
        """Restores before the first batch: building loaders and checking the validation draw numbers, too."""
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` with their steps, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step=*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint with the most steps that is not damaged; None when there is none."""
    return next((path for _, path in reversed(numbered(folder)) if is_whole(path)), None)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end; the directory of a zip file stands there."""
    return path.is_dir() or zipfile.is_zipfile(path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, or the newest one in the folder of a run, without running code from it."""
    path = Path(path)
    if path.is_dir():
        newest = newest_whole(path)
        if newest is None:
            raise UserError(f"{path} holds no checkpoint (step=*.ckpt)")
        path = newest
    if not path.exists():
        raise UserError(f"checkpoint not found: {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for files that are damaged or something else
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is no whole checkpoint of 'valle train': {reason}") from error
