"""What a training run keeps, so that a stopped one continues as if it had never stopped."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.callbacks.weight_averaging import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from valle.common.audio import save_audio
from valle.common.errors import UserError
from valle.common.files import whole
from valle.common.plot import draw_pair
from valle.data.shards import TokenHeader
from valle.synthesis.model import known_ends, read_config
from valle.tokenizers.text.characters import MARKS
from valle.training.checkpoints import newest_whole, numbered

log = logging.getLogger(__name__)

_AGREE_EVERY = 8
"""Batches between two exchanges of several processes about saving and stopping."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and renames: a killed run leaves no half-written checkpoint under that name."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with whole(path) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


class Checkpoints(Checkpoint):
    """Saves the run every so many minutes or batches, at its end, and when it is told to stop (SIGTERM).

    Keeps the newest `keep` checkpoints. One that cannot be written, on a full disk say, is a warning: training goes on,
    the next may succeed, and those that are there stay. Only the last one must succeed.

    Not Lightning's `ModelCheckpoint`, whose step count misses its multiples when one batch makes two optimizer steps.
    """

    def __init__(self, folder: Path, minutes: float, steps: int | None, keep: int) -> None:
        self.folder = folder
        self.minutes = minutes
        self.steps = steps
        self.keep = keep
        self.saved_at = time.monotonic()
        self.batches = 0
        self.due = False
        self.told_to_stop = False
        self.stopped = False
        self._last_step = 0
        self._saved_step = -1

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._last_step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            # Lightning's handler ends training without a checkpoint. It takes care to undo this afterwards.
            signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: Any) -> None:
        self.told_to_stop = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.batches += 1
        if self.steps is not None:
            self.due = self.due or self.batches % self.steps == 0
        else:
            self.due = self.due or time.monotonic() - self.saved_at >= 60 * self.minutes
        stepped = trainer.global_step != self._last_step
        self._last_step = trainer.global_step
        # Gradients that are still being accumulated are in no checkpoint. And saving is a joint act of all processes,
        # whose clocks differ and of which perhaps one is told to stop: they agree, but not after each batch.
        if not stepped or (trainer.world_size > 1 and self.batches % _AGREE_EVERY and not self.steps):
            return
        self.stopped = self._any(trainer, self.told_to_stop)
        if self.stopped or self._any(trainer, self.due):
            self._save(trainer)
        if self.stopped:
            trainer.should_stop = True  # after a validation, which may well be cut short

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._saved_step != trainer.global_step and not self._save(trainer):
            raise UserError(
                f"the last checkpoint could not be written to {self.folder} (see above); make room there and run the "
                "same command again: it continues from the newest checkpoint"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]

    @staticmethod
    def _any(trainer: L.Trainer, decision: bool) -> bool:
        if trainer.world_size == 1:
            return decision
        return trainer.strategy.reduce_boolean_decision(decision, all=False)

    def _save(self, trainer: L.Trainer) -> bool:
        """Whether it was saved."""
        self.saved_at, self.due = time.monotonic(), False
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if self._any(trainer, trainer.is_global_zero and not self._is_room()):
            if trainer.is_global_zero:
                log.warning("%s: the disk is too full for a checkpoint; those that are there stay", self.folder)
            return False
        try:
            trainer.save_checkpoint(path)
        except (OSError, UserError, RuntimeError) as error:  # torch.save has a RuntimeError for what the disk refuses
            if trainer.world_size > 1:
                raise  # the other processes wait for this one, without end
            log.warning("%s could not be written: %s", path, str(error).splitlines()[0])
            return False
        if trainer.is_global_zero:
            for _, old in numbered(self.folder)[: -self.keep]:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self._saved_step = trainer.global_step
        return True

    def _is_room(self) -> bool:
        """Whether there is room for another checkpoint like the newest."""
        newest = newest_whole(self.folder)
        if newest is None:
            return True
        files = newest.rglob("*") if newest.is_dir() else [newest]
        return shutil.disk_usage(self.folder).free > sum(file.stat().st_size for file in files)


class ProgressLines(ProgressBar):
    """Where there is no terminal for a progress bar: a line every half minute and after each validation."""

    EVERY_SECONDS = 30.0

    def disable(self) -> None:
        """Asked of all ranks but the first, which alone has anything to say."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._began = self._said = time.monotonic()
        self._first = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if time.monotonic() - self._said >= self.EVERY_SECONDS:
            self._say(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._say(trainer)

    def _say(self, trainer: L.Trainer) -> None:
        self._said = time.monotonic()
        if not trainer.is_global_zero:
            return
        done, seconds = trainer.global_step - self._first, self._said - self._began
        words = [f"step {trainer.global_step}"]
        if trainer.max_steps > 0:
            left = (trainer.max_steps - trainer.global_step) * seconds / max(done, 1)
            left_words = f"{left / 60:.0f} min" if left >= 120 else f"{left:.0f} s"
            words = [f"step {trainer.global_step} of {trainer.max_steps}, {left_words} left"]
        words += [f"{name} {value:.3f}" for name, value in trainer.progress_bar_metrics.items()]
        print(", ".join(words), file=sys.stderr, flush=True)


class RandomState(L.Callback):
    """Keeps the state of the random generators of every process, which Lightning does not."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        # Checkpoints are made by all processes together, and written by the first.
        states: list[Any] = [_random_state()]
        if dist.is_initialized():
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, _random_state())
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["processes"][dist.get_rank() if dist.is_initialized() else 0]

    def on_train_batch_start(self, *_: Any) -> None:
        """Restores before the first batch: building loaders and checking the validation draw numbers, too."""
        if self._restored is not None:
            _set_random_state(self._restored)
            self._restored = None


def _random_state() -> dict[str, Any]:
    """Plain types only, so that the checkpoint can be read without running code from it."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    words = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), words, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class Origin(L.Callback):
    """Writes into each checkpoint what rebuilds the model without its YAML: codec or text tokenizer and codec spec."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        """`settings`: of the model, plain values; a run keeps them."""
        self.kind = kind
        self.settings = settings

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        origin: dict[str, Any] = {"kind": self.kind, "settings": self.settings}
        if self.kind == "codec":
            origin["codec"] = {"name": pl_module.codec.spec.name, "config": pl_module.codec.config}
        else:
            header: TokenHeader = trainer.datamodule.header
            start = pl_module.start.model
            ends = {*trainer.datamodule.ends, *(known_ends(read_config(Path(start))) if start else "")}
            origin["tokens"] = {
                **asdict(header),
                "languages": sorted(trainer.datamodule.tokens.languages),
                "ends": "".join(mark for mark in MARKS if mark in ends),
            }
        checkpoint["valle"] = origin


class EMA(WeightAveraging):
    """Lightning's `WeightAveraging` with a decay that grows to `decay`.

    A fixed decay of 0.999 would carry the random initial weights through the first thousand steps; here step n uses
    min(decay, (n + 1) / (n + 10)).
    """

    def __init__(self, decay: float = 0.999) -> None:
        # Buffers are constants of the configuration here; copying them keeps their types.
        super().__init__(use_buffers=False, avg_fn=self._average)
        self.decay = decay

    def _average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        decay = min(self.decay, (int(updates) + 1) / (int(updates) + 10))
        # Where the model itself is in bf16 (DeepSpeed), its average is in float32 all the same.
        return average.lerp(current.to(average.dtype), 1 - decay)


class CodecSamples(L.Callback):
    """Encodes and decodes the first `utterances` of the validation data.

    The run's folder gets `samples/step=N/` with the originals, what the codec makes of them and a picture of both;
    TensorBoard and wandb get the same where the run logs to them.
    """

    def __init__(self, utterances: int = 4) -> None:
        self.utterances = utterances

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        codec, folder = pl_module.codec, Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step}"
        rate = codec.spec.sample_rate
        for i, length in enumerate(batch.lengths[: self.utterances].tolist()):
            original = batch.wav[i, 0, :length].float()
            decoded = codec.decode(codec.encode(original[None, None]))[0, 0, :length].float()
            pair = {"original": original, "codec": decoded}
            for name, wav in pair.items():
                save_audio(folder / f"{i}-{name}.wav", wav, rate)
            figure = draw_pair(pair, rate, f"step {trainer.global_step}")
            figure.savefig(folder / f"{i}.png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    for name, wav in pair.items():
                        logger.experiment.add_audio(f"{name}/{i}", wav.cpu(), trainer.global_step, rate)
                    logger.experiment.add_figure(f"spectrogram/{i}", figure, trainer.global_step)
                elif isinstance(logger, WandbLogger):
                    files = [str(folder / f"{i}-{name}.wav") for name in pair]
                    logger.log_audio(f"audio/{i}", files, trainer.global_step, caption=list(pair))
                    logger.log_image(f"spectrogram/{i}", [str(folder / f"{i}.png")], trainer.global_step)
