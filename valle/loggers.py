"""Where a training run writes its numbers: always a CSV file, and TensorBoard or Weights & Biases on request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

LoggerName = Literal["tensorboard", "wandb"]


def make_loggers(folder: Path, names: Sequence[LoggerName]) -> list[Logger]:
    """The loggers of the run in `folder`; all write below it.

    Weights & Biases needs no network with `WANDB_MODE=offline` in the environment; `wandb sync` sends it later.
    A run that is continued goes on in the same place.
    """
    loggers: list[Logger] = [CSVLogger(folder, name="log")]
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(folder, name=None, version="tensorboard"))
    if "wandb" in names:
        run = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        loggers.append(WandbLogger(folder.name, save_dir=folder, id=run, project="valle", resume="allow"))
    return loggers
