"""Validation by synthesis, on a model that cannot speak yet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch

import valle
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.eval.validation import attention_map
from valle.synthesis.model import Bundle
from valle.training.run import train

TINY = Path(valle.__file__).parent / "configs" / "ar" / "tiny.yaml"


def test_a_model_in_training_speaks_at_each_validation(
    make_bundle: Callable[..., Bundle], recordings: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(aligned=False)
    bundle.save(tmp_path / "model")
    spec, text = bundle.codec.spec, bundle.text
    header = TokenHeader(spec, "codec", text.to_dict(), text.fingerprint, None, "cuts", 8, 8)
    (tmp_path / "tokens").mkdir()
    header.write(tmp_path / "tokens")
    codes, voice = torch.ones(spec.n_q, 50, dtype=torch.long), torch.zeros(spec.n_time_invariant, dtype=torch.long)
    phonemes = torch.tensor(text.encode("Hello."))
    utterances = [TokenizedUtterance(f"u{i}", "s", "", phonemes, codes, voice) for i in range(8)]
    write_shard(shard_path(tmp_path / "tokens", 0), header, utterances, [])
    asked = {
        "model": str(tmp_path / "model"),
        "prompts": [str(recordings / "3331-159605-0007.opus")],
        "texts": ["Hi."],
        "recogniser": None,
        "speakers": None,
    }
    callbacks = json.dumps([{"class_path": "valle.eval.validation.Listen", "init_args": asked}])
    places = [f"--run.folder={tmp_path / 'run'}", f"--data.shards=[{tmp_path / 'tokens'}]", "--data.val_fraction=0.5"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--data.max_seconds=2"]
    limits = ["--data.max_utterance_seconds=2", f"--trainer.callbacks={callbacks}"]
    train("ar", [f"--config={TINY}", *places, *quiet, *steps, *limits])
    for step in (1, 2):
        folder = tmp_path / "run" / "samples" / f"step={step}"
        assert {p.name for p in folder.iterdir()} == {"1-1.wav", "1-1.png", "attention.png"}
    with (tmp_path / "run" / "log" / "version_0" / "metrics.csv").open() as file:
        assert sum(bool(row["listen/seconds"]) for row in csv.DictReader(file)) == 2


def test_the_attention_map_is_what_the_layers_compute(make_bundle: Callable[..., Bundle]) -> None:
    ar = make_bundle(aligned=False).ar
    phonemes, codes = torch.tensor([3, 9, 4, 7]), torch.tensor([1, 2, 3])
    shares = attention_map(ar, phonemes, codes)
    assert shares.shape == (4, 4)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    other = attention_map(ar, phonemes, torch.tensor([1, 2, 5]))
    torch.testing.assert_close(shares[:3], other[:3])  # causal: the last code is not seen before it is there
    assert not torch.equal(shares[3], other[3])
    pairs = attention_map(make_bundle(aligned=False, group_size=2).ar, phonemes, codes)
    assert pairs.shape == (2, 4)
