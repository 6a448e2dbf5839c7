"""What stops a run from outside leaves it whole."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import valle
from valle.common.errors import UserError
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.tokenizers.text import PhonemeTokenizer
from valle.training.checkpoints import load_checkpoint, newest_whole
from valle.training.run import train

TINY = Path(valle.__file__).parent / "configs" / "ar" / "tiny.yaml"


@pytest.fixture
def job(make_codec: Callable[..., Any], tmp_path: Path) -> Callable[..., list[str]]:
    """Options of a tiny job in `tmp_path / "run"`."""
    folder, spec, text = tmp_path / "tokens", make_codec().spec, PhonemeTokenizer()
    folder.mkdir()
    header = TokenHeader(spec, "codec", text.to_dict(), text.fingerprint, None, "cuts", 8, 8)
    header.write(folder)
    voice = torch.zeros(spec.n_time_invariant, dtype=torch.long)
    codes = torch.zeros(spec.n_q, 50, dtype=torch.long)
    phonemes = torch.tensor(text.encode("Hello."))
    write_shard(
        shard_path(folder, 0),
        header,
        [TokenizedUtterance(f"u{i}", "s", "", phonemes, codes, voice) for i in range(8)],
        [],
    )

    def options(*more: str) -> list[str]:
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        places = [f"--run.folder={tmp_path / 'run'}", f"--data.shards=[{folder}]"]
        size = ["--data.max_seconds=4", "--data.max_utterance_seconds=2", "--data.val_fraction=0"]
        return [f"--config={TINY}", *places, *size, *quiet, *more]

    return options


def test_a_run_that_is_told_to_stop_saves_first(job: Callable[..., list[str]], tmp_path: Path) -> None:
    run, handler = tmp_path / "run", signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        while newest_whole(run) is None:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as stopped:
        train("ar", job("--run.save_every_steps=2", "--trainer.max_steps=100000"))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    newest = newest_whole(run)
    assert newest is not None
    step = load_checkpoint(newest)["global_step"]
    train("ar", job("--run.save_every_steps=1000000", f"--trainer.max_steps={step + 2}"))
    assert load_checkpoint(run)["global_step"] == step + 2


def test_a_full_disk_costs_no_checkpoint(
    job: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train("ar", job("--run.save_every_steps=1", "--trainer.max_steps=2"))
    before = {path: path.read_bytes() for path in run.glob("*.ckpt")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond 50 kB: the log can go on, a checkpoint (some 300 kB) cannot.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="make room"):
            train("ar", job("--run.save_every_steps=1", "--trainer.max_steps=4"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be written" in caplog.text
    assert {path: path.read_bytes() for path in run.glob("*.ckpt")} == before
    assert not list(run.glob(".*.tmp"))
    train("ar", job("--run.save_every_steps=1", "--trainer.max_steps=4"))
    assert load_checkpoint(run)["global_step"] == 4


def test_accumulated_gradients_are_not_torn_by_a_checkpoint(job: Callable[..., list[str]], tmp_path: Path) -> None:
    train("ar", job("--run.save_every_steps=3", "--trainer.accumulate_grad_batches=2", "--trainer.max_steps=6"))
    # Due after batches 3, 6, 9, 12 (two make a step): after 3 and 9 half a step is open, so it is saved a batch later.
    assert sorted(p.name for p in (tmp_path / "run").glob("*.ckpt")) == ["step=5.ckpt", "step=6.ckpt"]


@pytest.mark.slow
def test_wandb_needs_no_network(job: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train("ar", job("--trainer.max_steps=2", '--run.also_log_to=["wandb"]'))
    wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_tensorboard_and_csv_are_written_below_the_run(job: Callable[..., list[str]], tmp_path: Path) -> None:
    train("ar", job("--trainer.max_steps=2", '--run.also_log_to=["tensorboard"]'))
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "log" / "version_0" / "metrics.csv").stat().st_size > 50
