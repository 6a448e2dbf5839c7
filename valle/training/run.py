"""`valle train`: Lightning jobs from YAML files that continue where they stopped."""

from __future__ import annotations

import atexit
import ctypes
import errno
import gc
import hashlib
import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.data.lm_data import LMDataModule
from valle.data.shards import TokenDataset, TokenHeader
from valle.lm.weights import MODELS
from valle.synthesis.model import read_config
from valle.tokenizers.codecs.registry import load_codec
from valle.tokenizers.text import read_text_tokenizer, text_tokenizer_from_dict
from valle.training.callbacks import AtomicCheckpointIO, Checkpoints, Origin, ProgressLines, RandomState
from valle.training.checkpoints import load_checkpoint, newest_whole

log = logging.getLogger(__name__)

LoggerName = Literal["tensorboard", "wandb"]
JOBS = {
    "codec": ("valle.tokenizers.codecs.task:CodecTask", "valle.data.codec_data:CodecDataModule"),
    "ar": ("valle.lm.task:ARTask", "valle.data.lm_data:LMDataModule"),
    "nar": ("valle.lm.task:NARTask", "valle.data.lm_data:LMDataModule"),
    "flow": ("valle.lm.flow_task:FlowTask", "valle.data.lm_data:LMDataModule"),
}
"""Task class and data class of each job."""

_NOT_FOR_USERS = (
    "does not have many workers",
    "is smaller than the logging interval",
    "You have overridden",
    "LeafSpec",
    "deprecated in v4.49",
    "Total length of `DataLoader` across ranks is zero",
    "DeepSpeed handles gradient clipping internally",
    "each worker will save a shard",
    "is deprecated. Please use `torch.distributed",
)

FACTS: dict[str, Callable[[TokenHeader], Any]] = {
    "text_vocab_size": lambda header: len(text_tokenizer_from_dict(header.text_tokenizer).vocab),
    "boundary_ids": lambda header: tuple(sorted(text_tokenizer_from_dict(header.text_tokenizer).boundary_ids)),
    "codebook_size": lambda header: header.codec.codebook_size,
    "n_q": lambda header: header.codec.n_q,
    "n_time_invariant": lambda header: header.codec.n_time_invariant,
    "time_invariant_size": lambda header: header.codec.time_invariant_size,
}
"""What a language model's config repeats of its training data: not for the YAML to say."""

ENOUGH_SECONDS = 300.0
"""Of speech to finetune on; the documentation advises twice as much."""

_MAY_CHANGE = ("max_bad_steps", "max_steps", "start_from")
"""Settings of a model that a run may be continued with others of."""


@dataclass
class RunConfig:
    """Where a run lives and how it is kept.

    Args:
        folder: checkpoints and logs go here; a run that finds checkpoints there continues from the newest.
        save_every_minutes: time between two checkpoints.
        save_every_steps: batches between two checkpoints, instead of minutes.
        keep: so many of the newest checkpoints are kept.
        also_log_to: besides the CSV file: tensorboard, wandb (offline with WANDB_MODE=offline).
        resume: whether to continue from a checkpoint; if false, the folder must not hold any.
        threads: CPU threads; default: what torch finds best.
    """

    folder: str
    save_every_minutes: float = 10.0
    save_every_steps: int | None = None
    keep: int = 2
    also_log_to: tuple[LoggerName, ...] = ()
    resume: bool = True
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.keep < 1 or self.save_every_minutes <= 0 or (self.save_every_steps or 1) < 1:
            raise UserError("run: keep, save_every_minutes and save_every_steps must be above 0")
        if self.threads is not None and self.threads < 1:
            raise UserError("run: threads must be at least 1")


MOVED = {"valle.lm.ema.": "valle.training.callbacks.", "valle.codec_samples.": "valle.training.callbacks."}
"""Modules that configurations of earlier versions name, and where their classes are now."""


class TrainCLI(LightningCLI):
    """LightningCLI with a run folder. Options that the training data decide are taken from there."""

    def __init__(self, kind: str, args: Sequence[str], start: dict[str, Any]) -> None:
        self.kind, self.start = kind, start
        task, data = (_load(path) for path in JOBS[kind])
        super().__init__(
            task,
            data,
            args=[_moved(word, before == "--config") for before, word in pairwise(("", *args))],
            run=False,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False, "prog": f"valle train {kind}"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunConfig, "run")
        if self.kind != "codec":
            for name, fact in FACTS.items():
                parser.link_arguments("data.header", f"model.config.{name}", fact, apply_on="instantiate")
        parser.set_defaults(self.start)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # The base class compares `args` with sys.argv, which belongs to `valle`, and warns.
        self.config = parser.parse_args(args)

    @property
    def settings(self) -> dict[str, Any]:
        """What a run is begun with and keeps, as plain values: what its model is, and how that learns."""
        model = {name: value for name, value in self.config.model.as_dict().items() if name not in _MAY_CHANGE}
        if self.kind != "codec":
            # Where the weights and the codes' vectors come from does not matter any more.
            model |= {"config": self.model.config.to_dict(), "start": {"lora": model["start"]["lora"]}, "codec": None}
        averaged = any(isinstance(callback, WeightAveraging) for callback in self.config_init.trainer.callbacks or ())
        return json.loads(json.dumps({"model": model, "averaged weights": averaged}, default=str))

    def check_continues(self, start: Path) -> None:
        """Raise `UserError` when the run of this checkpoint was begun as something else, or with other settings."""
        checkpoint = load_checkpoint(start)
        origin = checkpoint.get("valle", {})
        if origin.get("kind") != self.kind:
            raise UserError(
                f"{start.parent} is a run of 'train {origin.get('kind')}'; name another --run.folder for {self.kind}"
            )
        was = origin.get("settings", {"model": {"config": checkpoint.get("lm_config")}})
        if differences := _differences("", was, self.settings):
            raise UserError(
                f"{start.parent} was begun with {'; '.join(differences)}: a run keeps its settings; "
                "give those again, or begin another one: --run.folder"
            )

    def before_instantiate_classes(self) -> None:
        threads = self.config.run.threads
        if threads is not None:
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **options: Any) -> L.Trainer:
        strategy = str(self.config_init.trainer.strategy)
        if strategy.startswith("deepspeed"):
            from valle.training import deepspeed

            deepspeed.register(strategy)
        run: RunConfig = self.config_init.run
        folder = Path(run.folder)
        checkpoints = Checkpoints(folder, run.save_every_minutes, run.save_every_steps, run.keep)
        callbacks = [RandomState(), Origin(self.kind, self.settings), checkpoints]
        trainer = self.config_init.trainer
        if trainer.enable_progress_bar is not False and not sys.stdout.isatty():
            callbacks.append(ProgressLines())
        self.trainer_defaults = {"callbacks": callbacks}
        if trainer.logger is None:
            options["logger"] = make_loggers(folder, run.also_log_to)
        if trainer.plugins is None:
            options["plugins"] = [AtomicCheckpointIO()]
        return super().instantiate_trainer(default_root_dir=str(folder), **options)


def build(kind: str, args: Sequence[str], start: dict[str, Any] | None = None) -> TrainCLI:
    """Task, data and trainer from command-line arguments, and from `start` what they do not say; nothing is trained.

    Raises `UserError` for a key or a value that does not fit, naming it.
    """
    try:
        return TrainCLI(kind, args, start or {})
    except (jsonargparse.ArgumentError, MisconfigurationException) as error:
        raise UserError(f"train {kind}: {_one_line(str(error))}") from error


def train(kind: str, args: Sequence[str], model: str | None = None) -> None:
    """Run a training job, or continue it. `args` are those of LightningCLI: --config FILE --trainer.max_steps N …

    `model`: the model to start from (finetuning): folder, Hub id, or "embedded".
    """
    atexit.register(_leave_group)
    tune_memory()
    torch.set_flush_denormal(True)
    _silence_libraries()
    cli = build(kind, args, None if model is None else start_settings(kind, model))
    if kind in ("ar", "nar"):
        _check_readable(cli.datamodule)
    if model is not None:
        check_tokens(cli.model.start.model, cli.datamodule.header)
        warn_of_little(cli.datamodule, cli.trainer.max_steps)
    run: RunConfig = cli.config_init.run
    start = newest_whole(Path(run.folder))
    if start is not None:
        if not run.resume:
            raise UserError(f"{run.folder} already holds a run; name another --run.folder, or leave out run.resume")
        if start.is_dir() != getattr(cli.trainer.strategy, "guards_gradients", False):
            with_or_without = "with" if start.is_dir() else "without"
            raise UserError(f"{start} was written {with_or_without} DeepSpeed; continue so, or start a new run")
        cli.check_continues(start)
        print(f"continuing from {start}", file=sys.stderr)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=start and str(start), weights_only=True)
    except SystemExit:
        # What Lightning makes of Ctrl-C.
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk of {run.folder} is full; make room and run the same command again: it continues from "
            f"{newest_whole(Path(run.folder)) or 'the start'}"
        ) from error
    if any(isinstance(callback, Checkpoints) and callback.stopped for callback in cli.trainer.callbacks):
        print("told to stop: saved; the same command continues", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)
    if cli.trainer.is_global_zero:
        print(f"{run.folder}: {cli.trainer.global_step} steps; next: {_next_command(cli, run.folder, model)}")


def _next_command(cli: TrainCLI, folder: str, model: str | None) -> str:
    """What one does with the run in `folder`; in capitals stands what it does not know."""
    parts = [f"--{cli.kind} {folder}"]
    if model is not None:
        parts += parts_beside(cli.kind, model)
    elif cli.kind != "codec":
        parts += [f"--codec {cli.config.model.codec or 'CODEC'}", *([] if cli.kind == "ar" else ["--ar AR"])]
        parts += ["--aligner ALIGNER"] if cli.model.config.aligned else []
    return f"valle export {' '.join(parts)} --out {'CODEC' if cli.kind == 'codec' else 'MODEL'}"


def _leave_group() -> None:
    """Leave the group of processes, if there is one, while Python still runs.

    A thread of gloo that comes to its end in what Python does after that aborts the process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    deepspeed = sys.modules.get("deepspeed")
    if deepspeed is not None and deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()  # which knows the groups that DeepSpeed keeps
    else:
        dist.destroy_process_group()
    gc.collect()


def tune_memory() -> None:
    """Let glibc keep large blocks for the next step.

    By default it gives each big tensor back to the system and asks for a new one, zeroed page by page: that costs
    a third of a training step on a CPU. No effect elsewhere than on glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, (1 << 31) - 1)


def _check_readable(data: LMDataModule) -> None:
    """Raise `UserError` for tokens that only a flow can learn from."""
    for folder in (*data.shards, *(data.val_shards or ())):
        header = TokenHeader.read(folder)
        if not header.has_text or header.disguise != 1:
            why = "are disguised" if header.has_text else "have no text"
            raise UserError(f"the tokens in {folder} {why}: only 'valle train flow' can use them")


def _silence_libraries() -> None:
    """Hide what the libraries tell each other, and advertisements."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOT_FOR_USERS:
        warnings.filterwarnings("ignore", f"(?s).*{message}")


def _moved(word: str, is_config: bool) -> str:
    """An argument with the names of today; a configuration file with others is given by its content instead."""
    given = Path(word).read_text(encoding="utf-8") if is_config and Path(word).is_file() else word
    text = given
    for old, new in MOVED.items():
        text = text.replace(old, new)
    return word if text == given else text


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _differences(name: str, was: Any, now: Any) -> list[str]:
    """In words, where two trees of settings differ; what only one of them knows is left to its default."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [line for key in was if key in now for line in _differences(f"{name}.{key}", was[key], now[key])]
    return [] if was == now else [f"{name.lstrip('.')} {was}, now {now}"]


def _one_line(message: str) -> str:
    return " ".join(message.split())


def start_settings(kind: str, model: str) -> dict[str, Any]:
    """The settings of a job that starts from `model` (folder, Hub id or "embedded") and takes its shape."""
    folder = find_model(model)
    shape = read_config(folder)["model"].get(kind)
    if shape is None:
        raise UserError(f"--model {model} has no {kind} model")
    config = MODELS[kind].config_class.from_dict(shape).to_dict()
    shape = {f"model.config.{name}": value for name, value in config.items() if name not in FACTS}
    return {**shape, "model.start.model": str(folder)}


def parts_beside(kind: str, model: str) -> list[str]:
    """The options of `valle export` that take all from `model` but its part `kind`."""
    parts = read_config(find_model(model))["model"]
    named = ["codec", *(part for part in ("ar", "nar", "flow", "aligner") if part != kind and parts.get(part))]
    return [f"--{part} {model}" for part in named]


def warn_of_little(data: LMDataModule, steps: int) -> None:
    """Say so when there is so little speech that finetuning learns it by heart."""
    seconds = float(TokenDataset(data.shards).seconds.sum())
    if seconds < ENOUGH_SECONDS:
        times = steps * min(data.max_seconds, seconds) / seconds
        log.warning(
            "%.0f s of speech are little to finetune on: in %d steps the model hears them %.0f times and may learn "
            "them by heart; give ten minutes, or a smaller --trainer.max_steps; 'valle clone' needs no training",
            seconds,
            steps,
            times,
        )


def check_tokens(folder: str | Path, tokens: TokenHeader) -> None:
    """Raise `UserError` when the tokens are not in the language of the model: other codes, or other symbols."""
    text = read_text_tokenizer(folder)
    if text.fingerprint != tokens.text_tokenizer_hash:
        raise UserError(
            f"the training data have another text tokenizer than {folder}; tokenize --text-tokenizer {folder}"
        )
    if load_codec(folder).fingerprint != tokens.codec_hash:
        raise UserError(
            f"the training data were made with another codec than that of {folder}; tokenize --codec {folder}"
        )


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
