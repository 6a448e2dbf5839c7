"""The bench measures real steps, and its arithmetic is that of the model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from valle.bench.training import data_wait, invented_batch, measure, step_work
from valle.cli import main
from valle.lm import ARConfig, ARModel, NARModel

SIZES = {"text_vocab_size": 20, "codebook_size": 32, "n_q": 2, "dim": 32, "layers": 2, "heads": 2, "ff": 48}


@pytest.mark.parametrize("kind", ["ar", "nar"])
def test_the_work_of_a_step_is_that_of_its_matrix_products(kind: str) -> None:
    config = ARConfig(**SIZES)
    batch = invented_batch(config, 40.0, 50.0)
    assert batch.codes.shape == (4, 2, 500) and batch.phonemes.shape == (4, 150)
    layer = 32 * 3 * 32 + 32 * 32 + 32 * 2 * 48 + 48 * 32
    head = 32 * (33 if kind == "ar" else 32)
    positions = 650
    expected = 4 * (6 * positions * (2 * layer + head) + 12 * 2 * 32 * positions**2)
    assert step_work(ARModel(config) if kind == "ar" else NARModel(config), config, batch) == expected


def test_the_work_of_a_step_with_groups() -> None:
    config = ARConfig(**SIZES, group_size=2)
    batch = invented_batch(config, 40.0, 50.0)
    weights = 2 * (32 * 3 * 32 + 32 * 32 + 32 * 2 * 48 + 48 * 32) + 32 * 2 * 33 + 2 * 32 * 32
    assert step_work(ARModel(config), config, batch) == 4 * (6 * 400 * weights + 12 * 2 * 32 * 400**2)


def test_measured_and_predicted() -> None:
    speed = measure("ar", ARConfig(**SIZES, aligned=True, boundary_ids=(2,)), 3.0, 50.0, steps=1)
    assert 0 < speed.mfu < 1 and speed.batch_seconds == pytest.approx(3.0)
    # Two layers keep at least their inputs, queries, keys, values and both halves of the feed-forward layer.
    assert speed.activation_bytes > 4 * 2 * 195 * (2 * 32 + 96 + 96)
    assert speed.epoch_hours(100.0, 8) == pytest.approx(100 / speed.realtime / 8 / 0.9)
    assert speed.epoch_hours(100.0, 1, 10 * speed.achieved) == pytest.approx(10 / speed.realtime)
    whole = speed.gpu_bytes(1, 0) - speed.activation_bytes
    assert whole == pytest.approx(16 * speed.parameters)
    assert [round(16 * (speed.gpu_bytes(8, s) - speed.activation_bytes) / whole, 2) for s in (1, 2, 3)] == [
        5.5,
        3.75,
        2,
    ]


def test_a_loader_that_is_too_slow_is_noticed() -> None:
    def slowly() -> Iterator[int]:
        for number in range(100):
            time.sleep(0.02)
            yield number

    assert 0.49 < data_wait(slowly(), 0.02, 5) < 0.9  # more than half when the machine is busy
    assert data_wait(iter(range(100)), 0.1, 5) < 0.1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "train", "--config", "configs/nar/tiny.yaml", "--seconds", "2", "--steps", "1"]
    threads = torch.get_num_threads()
    assert main([*words, "--json", "--gpus", "1", "8"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["hours_per_epoch"]["LibriTTS"]) == {"1", "8"} and torch.get_num_threads() == threads
    assert main([*words, "--peak-tflops", "312"]) == 0
    assert "MFU" in capsys.readouterr().out
    assert main(["bench", "train", "--config", "configs/codec/tiny.yaml"]) == 2
    assert "language model" in capsys.readouterr().err
