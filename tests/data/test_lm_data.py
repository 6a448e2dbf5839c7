from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.data.batch import LMBatch
from valle.data.lm_data import LMDataModule
from valle.data.shards import TokenDataset, TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.tokenizers.codecs import CodecSpec

SPEC = CodecSpec("spectral", 16000, 320, 4, 1024, 8, 1024)
UTTERANCES, SPEAKERS = 60, 6


def write_tokens(folder: Path, seed: int = 0, texts: Sequence[str] = (), **changes) -> Path:
    """Sixty utterances of 1 to 4 seconds by six speakers, in three shards. The first code names the utterance."""
    values = {
        "codec": SPEC, "codec_hash": "c0dec", "text_tokenizer": {"kind": "phonemes"}, "text_tokenizer_hash": "7e47",
        "aligner_hash": None, "cuts_hash": "c075", "utterances": UTTERANCES, "shard_size": 20, **changes,
    }  # fmt: skip
    header = TokenHeader(**values)
    folder.mkdir()
    header.write(folder)
    draw = torch.Generator().manual_seed(seed)
    utterances = []
    for i in range(UTTERANCES):
        codes = torch.randint(1024, (4, int(torch.randint(50, 200, (), generator=draw))), generator=draw)
        codes[0, 0] = i
        phonemes = torch.randint(2, 50, (12,), generator=draw)
        name, speaker = f"{seed}-{i}", f"speaker-{i % SPEAKERS}"
        utterances.append(
            TokenizedUtterance(name, speaker, texts[i] if texts else f"text {i}", phonemes, codes, torch.full((8,), i))
        )
    for shard in range(header.shards):
        part = utterances[shard * header.shard_size : (shard + 1) * header.shard_size]
        write_shard(shard_path(folder, shard), header, part, [])
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "set")


def names(batch: LMBatch) -> list[int]:
    return batch.codes[:, 0, 0].tolist()


def lenders(batch: LMBatch) -> list[int]:
    assert batch.time_invariant is not None
    return batch.time_invariant[:, 0].tolist()


def test_an_epoch_is_the_training_half_and_validation_the_other(tokens: Path) -> None:
    data = LMDataModule([str(tokens)], max_seconds=12, max_utterance_seconds=12, val_fraction=0.3)
    data.setup()
    train = [name for batch in data.train_dataloader() for name in names(batch)]
    validation = [name for batch in data.val_dataloader() for name in names(batch)]
    assert sorted(train + validation) == list(range(UTTERANCES))
    assert 5 < len(validation) < 35
    again = LMDataModule([str(tokens)], max_seconds=12, max_utterance_seconds=12, val_fraction=0.3, seed=7)
    again.setup()
    assert {name for batch in again.val_dataloader() for name in names(batch)} == set(validation)
    for batch in data.train_dataloader():
        assert batch.codes.shape[0] * batch.codes.shape[2] <= 12 * 50


def test_the_ends_of_the_texts_that_are_frequent_enough_are_known(tmp_path: Path) -> None:
    ends = [".", "?", '."', ""]
    for rare, known in ((1, "?."), (3, "?!.…")):  # of 120 utterances, 1 % is more than one
        texts = [f"text {ends[i % 4]}" for i in range(UTTERANCES - 2 * rare)] + ["Oh!", "well…"] * rare
        first = write_tokens(tmp_path / f"some-{rare}", texts=texts)
        second = write_tokens(tmp_path / f"more-{rare}", seed=1, texts=["none"] * UTTERANCES)
        data = LMDataModule([str(first), str(second)])
        data.setup()
        assert data.ends == known
    data = LMDataModule([str(second)])
    data.setup()
    assert data.ends == ""


def test_validation_by_speaker_has_new_voices_and_their_own_codes(tokens: Path) -> None:
    data = LMDataModule([str(tokens)], val_by="speaker", val_fraction=0.4, swap_time_invariant=1.0)
    data.setup()
    assert {u % SPEAKERS for u in data.train_utterances} & {u % SPEAKERS for u in data.val_utterances} == set()
    for batch in data.val_dataloader():
        assert lenders(batch) == names(batch)


def test_swapped_codes_are_another_training_utterance_of_the_speaker(tokens: Path) -> None:
    data = LMDataModule([str(tokens)], swap_time_invariant=1.0, val_fraction=0.2)
    data.setup()
    trained = set(data.train_utterances.tolist())
    for batch in data.train_dataloader():
        for name, lender in zip(names(batch), lenders(batch), strict=True):
            assert lender != name and lender % SPEAKERS == name % SPEAKERS and lender in trained


def test_only_utterances_of_fitting_length_are_used(tokens: Path) -> None:
    data = LMDataModule([str(tokens)], min_utterance_seconds=1.5, max_utterance_seconds=2.5, val_fraction=0)
    data.setup()
    lengths = torch.cat([batch.code_lengths for batch in data.train_dataloader()])
    assert 75 <= lengths.min() <= lengths.max() <= 125
    assert len(lengths) == ((data.tokens.seconds >= 1.5) & (data.tokens.seconds <= 2.5)).sum()
    assert len(data.val_dataloader()) == 0


def test_other_folders_can_join_if_they_were_made_alike(tokens: Path, tmp_path: Path) -> None:
    more = write_tokens(tmp_path / "more", seed=1)
    both = TokenDataset([tokens, more])
    assert len(both) == 2 * UTTERANCES and both.ids[-1] == "1-59" and both.header.utterances == 2 * UTTERANCES
    torch.testing.assert_close(both[UTTERANCES + 33].codes, TokenDataset([more])[33].codes)
    for name, change in (
        ("codec", {"codec_hash": "other"}),
        ("text tokenizer", {"text_tokenizer_hash": "other"}),
    ):
        other = write_tokens(tmp_path / name, seed=2, **change)
        with pytest.raises(UserError, match=f"{tokens} and {other} have different {name}s: .* other"):
            TokenDataset([tokens, other])
        data = LMDataModule([str(tokens)], val_shards=[str(other)])
        with pytest.raises(UserError, match=f"different {name}s"):
            data.setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seconds": 5.0, "max_utterance_seconds": 6.0}, "max_utterance_seconds"),
        ({"swap_time_invariant": 1.5}, "swap_time_invariant is a share"),
        ({"min_utterance_seconds": 10.0}, r"no utterance lasts 10 to 20 s \(they last 1\.\d to \d\.\d s\)"),
        ({"val_fraction": 1.0}, "no utterance is left"),
        ({"shards": []}, "names no folder of tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(tokens: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LMDataModule(**{"shards": [str(tokens)], **settings}).setup()


class Recorder(lightning.LightningModule):
    """Remembers the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[int], list[int]]] = []

    def training_step(self, batch: LMBatch, batch_idx: int) -> Tensor:
        self.seen.append((names(batch), lenders(batch)))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_does(tokens: Path, tmp_path: Path, workers: int) -> None:
    def run(steps: int, resume: Path | None = None) -> list[tuple[list[int], list[int]]]:
        data = LMDataModule([str(tokens)], 12, max_utterance_seconds=12, val_fraction=0.0, num_workers=workers)
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0,
        )  # fmt: skip
        module = Recorder()
        trainer.fit(module, data, ckpt_path=resume, weights_only=False)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module.seen

    whole = run(30)  # an epoch has about a dozen batches
    first = run(5)
    second = run(18, resume=tmp_path / "last.ckpt")
    third = run(30, resume=tmp_path / "last.ckpt")
    assert first + second + third == whole


@pytest.mark.slow
def test_training_needs_no_lhotse(tokens: Path) -> None:
    code = (
        "import sys; sys.modules['lhotse'] = None\n"
        "from valle.data.lm_data import LMDataModule\n"
        f"data = LMDataModule([{str(tokens)!r}]); data.setup(); print(len(next(iter(data.train_dataloader()))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0 and int(result.stdout) > 0, result.stderr
