"""The recipes of the published codecs train: a few steps of each, small, on the shipped recordings."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import valle
from valle.data.corpus import read_corpus
from valle.data.prepare import prepare_entries
from valle.training.checkpoints import newest_whole
from valle.training.run import build, train

PACKAGE = Path(valle.__file__).parent
CONV = [
    "--model.codec.init_args.channels=128",
    "--model.codec.init_args.decoder_channels=128",
    "--model.codec.init_args.codebook_size=16",
    "--model.discriminators.init_args.period_channels=[4,4,4,4,4]",
    "--model.discriminators.init_args.scale_channels=128",
]
SIZES = {
    "ticodec_24k_1": CONV,
    "ticodec_24k_2": CONV,
    "ticodec_24k_4": CONV,
    "hificodec_24k": CONV,
    "vocodec": [
        *(f"--model.codec.init_args.{size}" for size in ("dim=32", "hidden=32", "codebook_size=16")),
        "--model.codec.init_args.time_invariant=true",
        "--model.adversarial_from=1",
    ],
}


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    entries = [e for e in read_corpus(PACKAGE / "assets/eval/list.tsv") if e.id.endswith(("0001", "0002"))]
    return prepare_entries(entries, tmp_path_factory.mktemp("prepared"), jobs=1).cuts


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def options(name: str, cuts: Path, cache: Path, folder: Path) -> list[str]:
    config = ["--config", str(PACKAGE / f"configs/codec/{name}.yaml")]
    data = [f"--data.cuts={cuts}", f"--data.cache_dir={cache}", "--data.segment_samples=4800", "--data.batch_size=2"]
    data += ["--data.val_seconds=1", "--data.val_utterances=2", "--data.val_batch_size=2", "--data.num_workers=0"]
    small = ["--model.discriminators.init_args.stft_channels=4", "--trainer.accelerator=cpu", "--run.threads=1"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1"]
    return [*config, *data, *small, *steps, *SIZES[name], f"--run.folder={folder}"]


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_trains(name: str, cuts: Path, cache: Path, tmp_path: Path) -> None:
    train("codec", options(name, cuts, cache, tmp_path))
    rows = list(csv.DictReader((tmp_path / "log/version_0/metrics.csv").open()))
    logged = {name for row in rows for name, value in row.items() if value}
    assert {"train/mel", "train/adversarial", "train/feature_matching", "train/discriminator"} <= logged
    assert ("val/consistency" in logged) is (name != "hificodec_24k")
    assert all("nan" not in row.values() for row in rows)
    assert sorted(path.name for path in (tmp_path / "samples/step=2").iterdir()) == [
        *("0-codec.wav", "0-original.wav", "0.png", "1-codec.wav", "1-original.wav", "1.png")
    ]
    path = newest_whole(tmp_path)
    assert path is not None
    stored = torch.load(path, weights_only=True)
    assert set(stored["current_model_state"]) == set(stored["state_dict"]), "no average of the weights was kept"


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_says_what_it_trains(name: str, tmp_path: Path) -> None:
    model = build("codec", ["--config", str(PACKAGE / f"configs/codec/{name}.yaml"), f"--run.folder={tmp_path}"]).model
    spec = model.codec.spec
    n_q = {"vocodec": 6, "hificodec_24k": 4}.get(name) or int(name[-1])
    assert (spec.name, spec.sample_rate, spec.n_q) == (name.split("_")[0], 24000, n_q)
    assert model.discriminators is not None
    assert len(model.discriminators.parts) == (5 if name == "vocodec" else 13)


@pytest.mark.slow
def test_two_processes_train_one_codec(cuts: Path, cache: Path, tmp_path: Path) -> None:
    words = [*options("vocodec", cuts, cache, tmp_path), "--trainer.devices=2", "--model.quantizer_dropout=0.9"]
    # Lightning has left the address of an earlier test's processes in the environment.
    place = {k: v for k, v in os.environ.items() if k not in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK")}
    command = [sys.executable, "-m", "valle", "train", "codec", *words]
    done = subprocess.run(command, cwd=PACKAGE.parent, env=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = newest_whole(tmp_path)
    assert path is not None and path.name == "step=2.ckpt"
