"""ZeRO 1, 2 and 3 as two processes on CPUs: they train what one process with the doubled batch trains."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import valle
from valle.cli import main
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.lm import Request, Sampling, from_checkpoint, generate
from valle.synthesis.model import Bundle
from valle.tokenizers.codecs import save_codec
from valle.tokenizers.text import PhonemeTokenizer
from valle.training.checkpoints import is_whole, load_checkpoint
from valle.training.run import train

pytest.importorskip("deepspeed")

ROOT = Path(__file__).parents[3]
TINY = Path(valle.__file__).parent / "configs" / "ar" / "tiny.yaml"
STEPS = 4
TOLERANCE = 1e-5
"""Largest difference of a weight; sums in another order make about 1e-7 a step, and steps of Adam are 3e-3."""
POISON = """
import valle.lm.task as task
honest = task.ARTask.training_step
def poisoned(self, batch, index):
    loss = honest(self, batch, index)
    return loss * float("nan") if index == 0 and self.current_epoch == 1 and self.global_rank == 1 else loss
task.ARTask.training_step = poisoned
"""
"""One process' loss is once not a number."""
CHILD = """
import atexit, json, os, sys
import torch.distributed as dist
atexit.register(lambda: dist.is_initialized() and os._exit(7))
from valle.training.run import train
for kind, *args in json.loads(sys.argv[1]):
    train(kind, args)
"""
"""Trains; its exit code is 7 if in the end it is still in the group of processes, whose threads can abort it then."""


@pytest.fixture(scope="module")
def tokens(make_codec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 utterances of the same length, so that two batches of 4 weigh as much as one of 8."""
    folder, codec, text = tmp_path_factory.mktemp("tokens"), make_codec(), PhonemeTokenizer()
    spec = codec.spec
    header = TokenHeader(spec, codec.fingerprint, text.to_dict(), text.fingerprint, "aligner", "cuts", 8, 8)
    header.write(folder)
    g = torch.Generator().manual_seed(0)
    utterances = []
    for i in range(8):
        codes = torch.randint(spec.codebook_size, (spec.n_q, 50), generator=g)
        voice = torch.randint(spec.time_invariant_size, (spec.n_time_invariant,), generator=g)
        phonemes = torch.tensor(text.encode("Hello."))
        durations = torch.full_like(phonemes, 5)
        durations[-1] += 50 - durations.sum()
        utterances.append(TokenizedUtterance(f"u{i}", "s", "", phonemes, codes, voice, durations))
    write_shard(shard_path(folder, 0), header, utterances, [])
    return folder


def settings(folder: Path, tokens: Path, processes: int, strategy: str) -> list[str]:
    """One step an epoch, all 8 utterances in it, nothing random."""
    return [
        f"--config={TINY}",
        f"--run.folder={folder}",
        "--run.save_every_steps=2",
        f"--data.shards=[{tokens}]",
        f"--data.max_seconds={8 / processes}",
        "--data.max_utterance_seconds=1",
        "--data.val_fraction=0",
        "--data.swap_time_invariant=0",
        "--model.config.aligned=true",
        "--model.config.dropout=0",
        "--model.config.ti_dropout=0",
        "--model.optim.warmup_steps=0",
        "--trainer.callbacks=[]",
        f"--trainer.max_steps={STEPS}",
        f"--trainer.devices={processes}",
        f"--trainer.strategy={strategy}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


def in_two_processes(*jobs: list[str], before: str = "") -> None:
    """Run training jobs one after the other in the same two processes, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", before + CHILD, json.dumps(jobs)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | place | {"LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)[-5000:]


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a weight."""
    assert one["state_dict"].keys() == other["state_dict"].keys()
    return max(float((w - other["state_dict"][n]).abs().max()) for n, w in one["state_dict"].items())


@pytest.mark.slow
def test_zero_trains_what_one_process_trains(tokens: Path, make_codec: Callable[..., Any], tmp_path: Path) -> None:
    train("ar", settings(tmp_path / "one-ar", tokens, 1, "auto"))
    ema = '--trainer.callbacks=[{"class_path": "valle.training.callbacks.EMA", "init_args": {"decay": 0.5}}]'
    train("ar", [*settings(tmp_path / "one-ema", tokens, 1, "auto"), ema])
    jobs = [["ar", *settings(tmp_path / f"zero-{n}", tokens, 2, f"deepspeed_cpu_stage_{n}")] for n in (1, 2, 3)]
    jobs.append(["ar", *settings(tmp_path / "zero-ema", tokens, 2, "deepspeed_cpu_stage_2"), ema])
    jobs.append(["nar", *settings(tmp_path / "zero-nar", tokens, 2, "deepspeed_cpu_stage_3"), "--trainer.max_steps=1"])
    in_two_processes(*jobs)

    one = load_checkpoint(tmp_path / "one-ar")
    moved = difference(one, load_checkpoint(tmp_path / "one-ar" / "step=2.ckpt"))
    assert moved > 100 * TOLERANCE
    for stage in (1, 2, 3):
        assert difference(one, load_checkpoint(tmp_path / f"zero-{stage}")) < TOLERANCE
    assert difference(load_checkpoint(tmp_path / "one-ema"), load_checkpoint(tmp_path / "zero-ema")) < TOLERANCE
    assert torch.isfinite(load_checkpoint(tmp_path / "zero-nar")["state_dict"]["model.prefix.text.weight"]).all()

    # Stopped after two steps and continued, it comes to the same; a checkpoint that was cut short is passed over.
    again = {name: tmp_path / f"again-{name}" for name in ("3", "ema")}
    for name, folder in again.items():
        shutil.copytree(tmp_path / f"zero-{name}" / "step=2.ckpt", folder / "step=2.ckpt")
        shutil.copytree(tmp_path / f"zero-{name}" / "step=4.ckpt", folder / "step=3.ckpt")
        part = next((folder / "step=3.ckpt").rglob("*rank_1*optim_states.pt"))
        part.write_bytes(part.read_bytes()[:1000])
        assert not is_whole(folder / "step=3.ckpt")
    in_two_processes(
        ["ar", *settings(again["3"], tokens, 2, "deepspeed_cpu_stage_3")],
        ["ar", *settings(again["ema"], tokens, 2, "deepspeed_cpu_stage_2"), ema],
    )
    assert difference(load_checkpoint(tmp_path / "zero-3"), load_checkpoint(again["3"] / "step=4.ckpt")) < 1e-7
    assert difference(load_checkpoint(tmp_path / "zero-ema"), load_checkpoint(again["ema"] / "step=4.ckpt")) < 1e-7

    # What was trained in parts becomes a model that says the same.
    save_codec(make_codec(), tmp_path / "codec")
    model = tmp_path / "model"
    assert main(["export", "--codec", str(tmp_path / "codec"), "--ar", str(again["3"]), "--out", str(model)]) == 0
    request = Request(torch.tensor(PhonemeTokenizer().encode("Hello there.")), seed=1)
    greedy = Sampling(greedy=True, max_frames_per_token=4.0)
    said = [generate(ar.eval(), [request], greedy)[0].codes for ar in (from_checkpoint(one), Bundle.load(model).ar)]
    assert torch.equal(*said)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_costs_one_step(tokens: Path, tmp_path: Path) -> None:
    jobs = {"1": ["--trainer.precision=bf16-mixed"], "3": []}
    in_two_processes(
        *(["ar", *settings(tmp_path / s, tokens, 2, f"deepspeed_cpu_stage_{s}"), *more] for s, more in jobs.items()),
        before=POISON,
    )
    for stage in jobs:
        with next((tmp_path / stage / "log").glob("*/metrics.csv")).open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["train/skipped_steps"]) for row in rows] == [0, 1, 1, 1]
        weights = load_checkpoint(tmp_path / stage)["state_dict"].values()
        assert all(torch.isfinite(weight).all() for weight in weights)


def test_what_does_not_fit_is_said(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "step=4.ckpt").mkdir()
    torch.save({"processes": 2}, tmp_path / "step=4.ckpt" / "weights.ckpt")
    assert main(["train", "ar", *settings(tmp_path, tokens, 1, "auto")]) == 2
    assert "written with DeepSpeed" in capsys.readouterr().err
    assert main(["train", "ar", *settings(tmp_path, tokens, 1, "deepspeed_stage_4")]) == 2
    assert "known with DeepSpeed are deepspeed_stage_1" in capsys.readouterr().err
    stage_3 = settings(tmp_path / "new", tokens, 1, "deepspeed_cpu_stage_3")
    averaged = ["--trainer.accelerator=cpu", '--trainer.callbacks=[{"class_path": "valle.training.callbacks.EMA"}]']
    assert main(["train", "ar", *stage_3, *averaged]) == 2
    assert "ZeRO stage 3 leaves no device with the whole weights" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what to do without a GPU")
def test_without_a_gpu_the_dry_run_is_named(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on_cpu = ["--trainer.accelerator=cpu", *settings(tmp_path, tokens, 1, "deepspeed_stage_2")]
    assert main(["train", "ar", *on_cpu]) == 2
    assert "for a try here: deepspeed_cpu_stage_N" in capsys.readouterr().err
    assert main(["train", "ar", *settings(tmp_path, tokens, 1, "auto"), "--trainer.accelerator=gpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
