"""Training jobs: every YAML builds, mistakes are named, a killed run goes on, and the parts become a model."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import valle
from valle.cli import main
from valle.common.errors import UserError
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.tokenizers.codecs import save_codec
from valle.tokenizers.text import PhonemeTokenizer
from valle.training.callbacks import EMA
from valle.training.checkpoints import load_checkpoint, newest_whole
from valle.training.run import JOBS, build, train

ROOT = Path(__file__).parents[3]
CONFIGS = Path(valle.__file__).parent / "configs"
YAMLS = sorted(path.relative_to(CONFIGS) for kind in JOBS for path in (CONFIGS / kind).rglob("*.yaml"))
OVERLAYS = sorted(path.relative_to(CONFIGS) for path in (CONFIGS / "scale").glob("*.yaml"))
HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
"""What a config for GPUs needs to be built without them."""


@pytest.fixture(scope="module")
def codec_dir(make_codec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec")
    save_codec(make_codec(), folder)
    return folder


@pytest.fixture(scope="module")
def tokens(make_codec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random, aligned tokens: 40 utterances of 1 to 2 seconds."""
    folder, spec, text = tmp_path_factory.mktemp("tokens"), make_codec().spec, PhonemeTokenizer()
    header = TokenHeader(spec, "codec", text.to_dict(), text.fingerprint, "aligner", "cuts", 40, 40)
    header.write(folder)
    g = torch.Generator().manual_seed(0)
    utterances = []
    for i in range(40):
        phonemes = torch.tensor(text.encode(f"Sentence number {i}."))
        durations = torch.randint(2, 6, phonemes.shape, generator=g)
        codes = torch.randint(spec.codebook_size, (spec.n_q, int(durations.sum())), generator=g)
        voice = torch.randint(spec.time_invariant_size, (spec.n_time_invariant,), generator=g)
        utterances.append(TokenizedUtterance(f"u{i}", f"s{i % 4}", "", phonemes, codes, voice, durations))
    write_shard(shard_path(folder, 0), header, utterances, [])
    return folder


def options(kind: str, folder: Path, tokens: Path, codec: Path | None = None) -> list[str]:
    """What a YAML leaves to the command line or a test must change: where things are."""
    if kind == "codec":
        paths = ["--data.cuts=cuts.jsonl.gz", f"--data.cache_dir={folder}", "--model.start_from=null"]
        return [f"--run.folder={folder}", *paths]
    return [f"--run.folder={folder}", f'--data.shards=["{tokens}"]', f"--model.codec={codec or 'null'}"]


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_config_builds(path: Path, tokens: Path, codec_dir: Path, tmp_path: Path) -> None:
    kind = path.parts[0]
    codec = codec_dir if kind == "flow" else None
    # As large as it would be, but without its weights; a flow's are in part those of the codec.
    with torch.device("meta" if path.stem == "libritts" and kind != "flow" else "cpu"):
        cli = build(kind, ["--config", str(CONFIGS / path), *options(kind, tmp_path, tokens, codec), *HERE])
    assert sum(p.numel() for p in cli.model.parameters()) > 1000
    if kind != "codec":
        config, header = cli.model.config, TokenHeader.read(tokens)
        assert (config.n_q, config.codebook_size) == (header.codec.n_q, header.codec.codebook_size)
        assert config.text_vocab_size == len(PhonemeTokenizer().vocab)


@pytest.mark.parametrize("path", OVERLAYS, ids=str)
def test_every_overlay_fits_a_config(path: Path, tokens: Path, tmp_path: Path) -> None:
    configs = ["--config", str(CONFIGS / "nar" / "libritts.yaml"), "--config", str(CONFIGS / path)]
    with torch.device("meta"):
        cli = build("nar", [*configs, *options("nar", tmp_path, tokens), *HERE])
    assert cli.config.trainer.max_steps < 200_000


def test_every_frame_of_a_group_starts_from_the_codebook(tokens: Path, codec_dir: Path, tmp_path: Path) -> None:
    configs = ["--config", str(CONFIGS / "ar" / "tiny.yaml"), "--config", str(CONFIGS / "grouped.yaml")]
    model = build("ar", [*configs, *options("ar", tmp_path, tokens, codec_dir)]).model.model
    assert (model.config.group_size, model.config.dim) == (2, 32)
    near = torch.pdist(model.code.weight[:16])
    for head in model.code_head.weight.unflatten(0, (2, 17)):
        assert torch.corrcoef(torch.stack((near, torch.pdist(head[:16]))))[0, 1] > 0.3


@pytest.mark.parametrize("how", ["file", "option"])
def test_a_class_is_found_by_the_name_it_had_before(how: str, tokens: Path, tmp_path: Path) -> None:
    """As in the configuration that an earlier run has logged."""
    written = (CONFIGS / "ar" / "tiny.yaml").read_text(encoding="utf-8")
    path, more = tmp_path / "config.yaml", []
    path.write_text(written.replace("valle.training.callbacks.EMA", "valle.lm.ema.EMA"))
    if how == "option":
        path, more = CONFIGS / "ar" / "tiny.yaml", ["--trainer.callbacks=[{class_path: valle.lm.ema.EMA}]"]
    cli = build("ar", ["--config", str(path), *options("ar", tmp_path, tokens), *more])
    assert sum(isinstance(callback, EMA) for callback in cli.trainer.callbacks) == 1


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model.optim.lerning_rate=1", "lerning_rate"),
        ("--model.optim.lr=fast", "lr"),
        ("--trainer.max_step=3", "max_step"),
        ("--data.shards=[nowhere]", "nowhere"),
        ("--run.keep=0", "keep"),
        ("--model.config.dim=31", "dim"),
        ("--model.config={aligned: true, group_size: 2}", "group_size"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    option: str, named: str, tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = str(CONFIGS / "ar" / "tiny.yaml")
    assert main(["train", "ar", "--config", tiny, *options("ar", tmp_path, tokens), option]) == 2
    shown = capsys.readouterr()
    assert named in shown.err
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 500


def test_a_run_keeps_its_settings_and_says_how_it_goes(
    tokens: Path, codec_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trainer.enable_model_summary=false", "--trainer.val_check_interval=1", "--data.max_seconds=40"]
    words = ["train", "ar", "--config", "configs/ar/tiny.yaml", *options("ar", tmp_path, tokens), *more]
    assert main([*words, "--trainer.max_steps=2"]) == 0
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("step ")]
    assert re.fullmatch(r"step 1 of 2, \d+ s left, train_loss \d\.\d+, val_loss \d\.\d+", lines[0]), said.err
    assert (
        said.out.splitlines()[-1]
        == f"{tmp_path}: 2 steps; next: valle export --ar {tmp_path} --codec CODEC --out MODEL"
    )
    for changed, named in {
        "--model.config.dim=64": "model.config.dim 32, now 64",
        "--model.optim.lr=1e-3": "model.optim.lr 0.003, now 0.001",
        "--model.start.lora.rank=2": "model.start.lora None, now {'rank': 2",
        "--trainer.callbacks=[]": "averaged weights True, now False",
    }.items():
        assert main([*words, changed]) == 2
        refused = capsys.readouterr().err
        assert f"{tmp_path} was begun with {named}" in refused and refused.count("\n") == 1
    nar = ["train", "nar", "--config", "configs/nar/tiny.yaml", *options("nar", tmp_path, tokens)]
    assert main(nar) == 2
    assert "is a run of 'train ar'" in capsys.readouterr().err
    # What decides no weight from here on may change.
    assert main([*words, "--trainer.max_steps=3", f"--model.codec={codec_dir}", "--model.max_bad_steps=9"]) == 0
    assert newest_whole(tmp_path) == tmp_path / "step=3.ckpt"


def test_a_wrong_key_in_a_yaml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((CONFIGS / "ar" / "tiny.yaml").read_text().replace("max_seconds:", "max_second:"))
    assert main(["train", "ar", "--config", str(path)]) == 2
    shown = capsys.readouterr()
    assert "max_second" in shown.err
    assert shown.err.count("\n") == 1


def test_torn_checkpoints_are_passed_over(tmp_path: Path) -> None:
    torch.save({"step": 5}, tmp_path / "step=5.ckpt")
    torch.save({"step": 10}, tmp_path / "step=10.ckpt")
    assert load_checkpoint(tmp_path) == {"step": 10}
    whole = (tmp_path / "step=10.ckpt").read_bytes()
    (tmp_path / "step=10.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_whole(tmp_path) == tmp_path / "step=5.ckpt"
    with pytest.raises(UserError, match=r"step=10\.ckpt is no whole checkpoint"):
        load_checkpoint(tmp_path / "step=10.ckpt")


def losses(folder: Path) -> list[dict[int, float]]:
    """Loss of each step in each log of a run, oldest log first."""
    logs = []
    for path in sorted((folder / "log").glob("version_*/metrics.csv")):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
        logs.append({int(row["step"]): float(row["train/loss"]) for row in rows})
    return logs


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(tokens: Path, tmp_path: Path) -> None:
    steps = 60
    tiny = [f"--config={CONFIGS / 'ar' / 'tiny.yaml'}", f"--trainer.max_steps={steps}", "--run.save_every_steps=7"]
    tiny += ["--data.max_seconds=8", "--data.max_utterance_seconds=8", "--trainer.enable_progress_bar=false"]
    train("ar", [*tiny, *options("ar", tmp_path / "whole", tokens)])
    whole = losses(tmp_path / "whole")[0]
    assert len(whole) == steps

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "valle", "train", "ar", *tiny, *options("ar", killed, tokens)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(killed.glob("step=[1-9][0-9].ckpt")):  # from step 14 on
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    newest = newest_whole(killed)
    assert newest is not None
    (killed / "step=999.ckpt").write_bytes(newest.read_bytes()[:5000])
    train("ar", [*tiny, *options("ar", killed, tokens)])
    continued = losses(killed)[-1]
    start = min(continued)
    assert 7 <= start < steps
    assert continued == {step: loss for step, loss in whole.items() if step >= start}


@pytest.mark.slow
def test_from_recordings_to_a_voice_with_the_commands_alone(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way of docs/training.md with an aligner, from fewer recordings: nothing is intelligible, all runs."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "tests" / "mini_libritts.py"))["build"](Path("LibriTTS"), utterances=4)

    def run(*words: str) -> None:
        assert main(list(words)) == 0, capsys.readouterr().err

    run("prepare", "libritts", "LibriTTS", "--out", "out/tiny/corpus", "--jobs", "1")
    run("train", "codec", "--config", "configs/codec/tiny.yaml", "--trainer.enable_progress_bar=false")
    run("export", "--codec", "runs/codec-tiny", "--out", "out/tiny/codec", "--about", "license=CC-BY-4.0")
    cuts = "out/tiny/corpus/cuts.jsonl.gz"
    run("train", "aligner", cuts, "--out", "aligner.safetensors", "--codec", "out/tiny/codec", "--max-hours", "0.03")
    tokens = ["--codec", "out/tiny/codec", "--aligner", "aligner.safetensors", "--out", "out/tiny/tokens"]
    run("tokenize", cuts, *tokens)
    for kind in ("ar", "nar", "flow"):
        settings = ["--trainer.max_steps=4", "--trainer.enable_progress_bar=false"]
        settings += [] if kind == "flow" else ["--model.config.aligned=true"]
        run("train", kind, "--config", f"configs/{kind}/tiny.yaml", *settings)
    parts = ["--codec", "out/tiny/codec", "--ar", "runs/ar-tiny", "--nar", "runs/nar-tiny"]
    run("export", *parts, "--aligner", "aligner.safetensors", "--out", "model", "--sampling", "temperature=0.9")
    prompt = recordings / "1688-142285-0003.opus"
    rows = [row.split("\t") for row in (recordings / "list.tsv").read_text().splitlines()]
    said = next(row[-1] for row in rows if row[0] == prompt.stem)
    run("clone", "--model", "model", "--prompt", str(prompt), "--prompt-text", said, "--text", "Hi.", "--out", "a.wav")
    shown = capsys.readouterr()
    assert "transcript is not used" not in shown.err
    run("export", *parts[:4], "--flow", "runs/flow-tiny", "--aligner", "aligner.safetensors", "--out", "flowing")
    run("clone", "--model", "flowing", "--prompt", str(prompt), "--text", "Hi.", "--out", "b.wav")
    assert "flow" in json.loads(Path("flowing/config.json").read_text())["model"]
    assert main(["export", *parts, "--flow", "runs/flow-tiny", "--out", "both"]) == 2

    # What a flow learns from may be of no use to a model that reads.
    run("tokenize", cuts, *tokens[:-1], "out/tiny/disguised", "--no-text", "--disguise", "1.4")
    shards = "--data.shards=[out/tiny/tokens, out/tiny/disguised]"
    run("train", "flow", "--config", "configs/flow/tiny.yaml", shards, "--run.folder=runs/b", "--trainer.max_steps=2")
    capsys.readouterr()
    assert main(["train", "ar", "--config", "configs/ar/tiny.yaml", shards, "--run.folder=runs/c"]) == 2
    assert "out/tiny/disguised have no text: only 'valle train flow'" in capsys.readouterr().err
    assert Path("a.wav").stat().st_size > 1000
    assert "CC-BY-4.0" in Path("model/README.md").read_text()
    assert json.loads(Path("model/config.json").read_text())["model"]["languages"] == ["en-us"]

    # A codec of the same shape with other weights is not the codec of the tokens.
    run("train", "codec", "--config", "configs/codec/tiny.yaml", "--run.folder=runs/other", "--trainer.max_steps=1")
    other = ["--codec", "runs/other", "--ar", "runs/ar-tiny", "--nar", "runs/nar-tiny", "--out", "wrong"]
    capsys.readouterr()
    assert main(["export", *other]) == 2
    assert "is not the one that ar's training data were made with" in capsys.readouterr().err
