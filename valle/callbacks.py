"""What a training run keeps, so that a stopped one continues as if it had never stopped."""

from __future__ import annotations

import os
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from valle.checkpoints import numbered
from valle.data.token_header import TokenHeader


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
        name, keys, position, has_gauss, cached = np.random.get_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "python": [version, list(numbers), gauss],
            # Plain types only, so that the checkpoint can be read without running code from it.
            "numpy": [
                str(name),
                torch.from_numpy(np.asarray(keys, dtype=np.int64)),
                int(position),
                int(has_gauss),
                float(cached),
            ],
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


class Origin(L.Callback):
    """Writes into each checkpoint what rebuilds the model without its YAML: codec or text tokenizer and codec spec."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        origin: dict[str, Any] = {"kind": self.kind}
        if self.kind == "codec":
            origin["codec"] = {"name": pl_module.codec.spec.name, "config": pl_module.codec.config}
        else:
            header: TokenHeader = trainer.datamodule.header
            origin["tokens"] = asdict(header)
        checkpoint["valle"] = origin
