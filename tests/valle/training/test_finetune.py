"""Finetuning from a finished model, and training with word pieces: from the command line to a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import valle
from valle.cli import main
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.synthesis.model import Bundle
from valle.tokenizers.text import BPETokenizer

CONFIGS = Path(valle.__file__).parent / "configs"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]


@pytest.fixture
def tokens(bundle: Bundle, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of 12 invented utterances for the bundle's text tokenizer and a codec with this hash."""

    def make(codec_hash: str) -> Path:
        folder = tmp_path / f"tokens-{codec_hash}"
        folder.mkdir()
        spec, text = bundle.codec.spec, bundle.text
        TokenHeader(spec, codec_hash, text.to_dict(), text.fingerprint, "aligner", "cuts", 12, 12).write(folder)
        header, g = TokenHeader.read(folder), torch.Generator().manual_seed(0)
        utterances = []
        for i in range(12):
            said = f"Sentence {i}, said by me,"
            phonemes = torch.tensor(text.encode(said))
            durations = torch.randint(2, 5, phonemes.shape, generator=g)
            codes = torch.randint(spec.codebook_size, (spec.n_q, int(durations.sum())), generator=g)
            voice = torch.randint(spec.time_invariant_size, (spec.n_time_invariant,), generator=g)
            utterances.append(TokenizedUtterance(f"u{i}", "me", said, phonemes, codes, voice, durations))
        write_shard(shard_path(folder, 0), header, utterances, [])
        return folder

    return make


def settings(run: Path, tokens: Path) -> list[str]:
    return [f"--run.folder={run}", f"--data.shards=[{tokens}]", "--trainer.max_steps=3", *QUIET]


FULL = ["--model.start.lora=null"]


@pytest.mark.parametrize(
    "how", [[], FULL, [*FULL, "--model.config.reusable_prompt=true"]], ids=["lora", "full", "reusable"]
)
def test_a_model_is_finetuned_and_exported(
    how: list[str],
    bundle: Bundle,
    model: Path,
    tokens: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("peft")
    run, out = tmp_path / "run", tmp_path / "mine"
    words = ["--config", str(CONFIGS / "finetune.yaml"), "--model", str(model)]
    fitting = tokens(Bundle.load(model).codec.fingerprint)
    assert main(["train", "ar", *words, *settings(run, fitting), *how]) == 0
    assert "s of speech are little to finetune on: in 3 steps" in caplog.text
    facts, following = capsys.readouterr().out.splitlines()[-1].split("; next: valle ")
    assert facts == f"{run}: 3 steps"
    assert main([str(out) if word == "MODEL" else word for word in following.split()]) == 0
    mine = Bundle.load(out)
    assert mine.ar.config == replace(bundle.ar.config, reusable_prompt=len(how) > 1) and mine.refiner is not None
    assert mine.ends == "?.,"  # the model's own, and that of the new texts
    start = Bundle.load(model).ar.state_dict()
    moved = {n: (w - start[n]).abs().max() for n, w in mine.ar.state_dict().items()}
    assert moved["transformer.blocks.0.attention.qkv.weight"] > 1e-5
    assert (moved["prefix.text.weight"] > 1e-5) == bool(how)  # LoRA leaves embeddings alone


def test_the_prompt_of_a_finished_model_becomes_reusable(
    bundle: Bundle, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["export", "--codec", str(model), "--out", str(tmp_path / "mine"), "--reusable-prompt"]
    assert main([*parts, "--ar", str(model)]) == 0
    mine, same = Bundle.load(tmp_path / "mine"), Bundle.load(model)
    assert mine.ar.config == replace(bundle.ar.config, reusable_prompt=True)
    for name, weights in same.ar.state_dict().items():
        assert torch.equal(mine.ar.state_dict()[name], weights)
    assert main(parts) == 2
    assert "give --ar" in capsys.readouterr().err


def test_tokens_of_another_codec_are_refused(
    model: Path, tokens: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(CONFIGS / "finetune.yaml"), "--model", str(model)]
    assert main(["train", "ar", *words, *settings(tmp_path / "run", tokens("other"))]) == 2
    assert "another codec" in capsys.readouterr().err


def test_word_pieces_by_a_line_of_the_config(
    make_codec: Callable, tokens: Callable[[str], Path], tmp_path: Path
) -> None:
    pieces = BPETokenizer.train([f"Sentence {i}, said by me or you." for i in range(40)], vocab_size=60)
    path = tmp_path / "bpe.json"
    path.write_text(json.dumps(pieces.to_dict()))
    run, fitting = tmp_path / "run", tokens("codec")
    tiny = ["--config", str(CONFIGS / "nar" / "tiny.yaml"), f"--data.text_tokenizer={path}"]
    assert main(["train", "nar", *tiny, *settings(run, fitting)]) == 0

    from valle.training.checkpoints import load_checkpoint

    made = load_checkpoint(run)
    assert made["lm_config"]["text_vocab_size"] == 60
    assert made["valle"]["tokens"]["text_tokenizer_hash"] == pieces.fingerprint
    assert made["valle"]["tokens"]["aligner_hash"] is None
