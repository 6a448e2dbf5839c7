"""Training data of codecs: the pool, its segments, and which token is spoken when."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.data.codec_data import AudioPool, CodecDataModule, PhoneFrames, SegmentBatch, SegmentDataset
from valle.data.cuts import cut_audio, load_cuts
from valle.data.shards import TokenHeader, TokenizedUtterance, shard_path, write_shard
from valle.tokenizers.codecs.base import CodecSpec
from valle.tokenizers.text import PhonemeTokenizer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pool(cuts: Path, cache: Path) -> AudioPool:
    return AudioPool.build(cuts, cache, 16000, jobs=2)


def test_the_pool_holds_the_audio_of_every_cut(cuts: Path, pool: AudioPool) -> None:
    loaded = list(load_cuts(cuts))
    assert pool.ids == [c.id for c in loaded] and pool.speakers == [c.supervisions[0].speaker for c in loaded]
    for i in (0, 7, len(pool) - 1):
        wav = cut_audio(loaded[i], 16000)
        assert pool.lengths[i] == len(wav)
        torch.testing.assert_close(pool.segment(i, 0, len(wav)), wav, rtol=0, atol=1 / 32767)


def test_a_segment_ends_with_its_utterance(pool: AudioPool) -> None:
    length = int(pool.lengths[0])
    segment = pool.segment(0, length - 100, 300)
    assert segment[:100].abs().max() > 0 and not segment[100:].any()


def test_the_cache_is_used_again_and_only_for_the_same_audio(cuts: Path, pool: AudioPool, cache: Path) -> None:
    (folder,) = cache.glob("pool-*")
    before = (folder / "samples.i16").stat().st_mtime_ns
    AudioPool.build(cuts, cache, 16000)
    assert (folder / "samples.i16").stat().st_mtime_ns == before
    half = AudioPool.build(cuts, cache, 8000)
    assert half.lengths.sum() == pytest.approx(pool.lengths.sum() / 2, rel=1e-3)
    assert len(list(cache.iterdir())) == 2


def test_a_recording_that_vanished_is_left_out(cuts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = load_cuts(cuts)[0].with_id("broken")
    broken.recording.sources[0].source = str(tmp_path / "gone.wav")
    manifest = tmp_path / "cuts.jsonl"
    lines = [json.dumps(c.to_dict()) for c in [broken, *list(load_cuts(cuts))[1:3]]]
    manifest.write_text("\n".join(lines))
    assert len(AudioPool.build(manifest, tmp_path / "cache", 16000)) == 2
    assert "left out" in caplog.text and "broken" in caplog.text
    manifest.write_text(lines[0])
    with pytest.raises(UserError, match="not one cut"):
        AudioPool.build(manifest, tmp_path / "cache", 16000)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_damaged_pool_is_named(cuts: Path, tmp_path: Path) -> None:
    AudioPool.build(cuts, tmp_path, 16000)
    (folder,) = tmp_path.iterdir()
    whole = (folder / "samples.i16").read_bytes()
    (folder / "samples.i16").write_bytes(whole[:-1000])
    with pytest.raises(UserError, match=str(folder)):
        AudioPool.build(cuts, tmp_path, 16000)


def test_a_step_is_the_same_in_every_process_and_unlike_others(pool: AudioPool) -> None:
    dataset = SegmentDataset(pool, 4000, 6, seed=1, max_gain_db=6)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 10_000  # the audio is not in it
    torch.testing.assert_close(pickle.loads(pickled)[3].wav, dataset[3].wav, rtol=0, atol=0)
    assert dataset[3].wav.shape == dataset[3].wav2.shape == (6, 1, 4000)
    assert not torch.equal(dataset[3].wav, dataset[4].wav)
    assert not torch.equal(dataset[3].wav, SegmentDataset(pool, 4000, 6, seed=1, rank=1)[3].wav)
    assert not torch.equal(dataset[3].wav, dataset[3].wav2)


def test_the_pair_of_segments_is_of_one_utterance_at_one_gain() -> None:
    # Utterance i is the constant 0.1 * (i + 1), so a segment tells where it is from and how loud it was made.
    lengths = np.array([3000, 500, 9000])
    starts = np.cumsum(lengths) - lengths
    samples = np.repeat(np.array([3277, 6553, 9830], np.int16), lengths)
    pool = AudioPool(16000, ["a", "b", "c"], ["a", "b", "c"], starts, lengths, samples)  # type: ignore[arg-type]
    batch = SegmentDataset(pool, 1000, 3000, seed=0, max_gain_db=3)[0]
    torch.testing.assert_close(batch.wav.amax(2), batch.wav2.amax(2))
    plain = SegmentDataset(pool, 1000, 3000, seed=0)[0]
    level = plain.wav.amax(2).flatten()
    shares = [(level - 0.1 * (i + 1)).abs().lt(1e-3).float().mean().item() for i in range(3)]
    assert shares == pytest.approx((lengths / lengths.sum()).tolist(), abs=0.03)
    gains = (batch.wav.amax(2) / plain.wav.amax(2)).log10() * 20
    assert -3 <= gains.min() < -2 and 2 < gains.max() <= 3.001
    short = plain.wav[(level - 0.2).abs() < 1e-3]
    assert short[..., :500].all() and not short[..., 500:].any()


def test_a_speaker_at_another_speed_is_another_speaker() -> None:
    time = np.arange(160_000) / 16000
    samples = (8000 * np.sin(2 * np.pi * 500 * time)).astype(np.int16)
    pool = AudioPool(16000, ["a"], ["a"], np.array([0]), np.array([len(samples)]), samples)  # type: ignore[arg-type]
    batch = SegmentDataset(pool, 4000, 40, seed=0, speeds=[0.8, 1.0, 1.2])[0]

    def pitch(wav: Tensor) -> Tensor:
        return torch.fft.rfft(wav[:, 0, :4000]).abs().argmax(-1) * 4.0

    assert set(pitch(batch.wav).tolist()) == {400.0, 500.0, 600.0}
    assert torch.equal(pitch(batch.wav), pitch(batch.wav2))
    for speed in (400.0, 500.0, 600.0):
        assert len(batch.speakers[pitch(batch.wav) == speed].unique()) == 1
    assert len(batch.speakers.unique()) == 3


def test_validation_speakers_are_not_trained_on(cuts: Path, cache: Path) -> None:
    data = CodecDataModule(str(cuts), str(cache), val_fraction=0.3, val_batch_size=2, val_seconds=2.0)
    data.setup()
    assert not set(data.train_pool.speakers) & set(data.val_pool.speakers)
    batches = list(data.val_dataloader())
    assert sum(len(b.lengths) for b in batches) == len(data.val_pool) > 0
    for batch in batches:
        assert batch.wav.shape[2] == batch.lengths.max() <= 2 * 16000


class Recorder(lightning.LightningModule):
    """Remembers the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def training_step(self, batch: SegmentBatch, batch_idx: int) -> Tensor:
        self.seen.append(batch.wav.double().abs().sum().item())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(
    cuts: Path, cache: Path, tmp_path: Path, workers: int
) -> None:
    def run(steps: int, resume: Path | None = None) -> list[float]:
        data = CodecDataModule(
            str(cuts), str(cache), 16000, 2000, batch_size=3, steps_per_epoch=4, num_workers=workers, val_fraction=0
        )
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0,
        )  # fmt: skip
        module = Recorder()
        trainer.fit(module, data, ckpt_path=resume, weights_only=False)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module.seen

    whole = run(10)
    assert len(set(whole)) == 10
    first = run(6)  # stops in the middle of an epoch of 4
    second = run(8, resume=tmp_path / "last.ckpt")  # at the end of one
    third = run(10, resume=tmp_path / "last.ckpt")
    assert first + second + third == whole


def shards(folder: Path, aligned: bool) -> Path:
    """One utterance of ten frames at 50 Hz: token 7 for four of them, token 3 for none, token 9 for six."""
    text = PhonemeTokenizer()
    spec = CodecSpec("spectral", 16000, 320, 1, 32, 0, 0)
    header = TokenHeader(spec, "c", text.to_dict(), text.fingerprint, "a" if aligned else None, "m", 1, 500)
    folder.mkdir()
    header.write(folder)
    utterance = TokenizedUtterance(
        "one", "speaker", "text", torch.tensor([7, 3, 9]), torch.zeros(1, 10).long(), None, torch.tensor([4, 0, 6])
    )
    write_shard(shard_path(folder, 0), header, [utterance], [])
    return folder


def test_each_frame_of_an_excerpt_has_the_token_at_its_centre(tmp_path: Path) -> None:
    phones = PhoneFrames(shards(tmp_path / "tokens", aligned=True))
    assert phones("one", 0.0, 0.2).tolist() == [7] * 4 + [9] * 6
    assert phones("one", 0.009, 0.1).tolist() == [7] * 4 + [9]  # 9 ms later: centres still in the same frames
    assert phones("one", 0.011, 0.1).tolist() == [7] * 3 + [9] * 2
    assert phones("one", 0.14, 0.1).tolist() == [9] * 3 + [-1] * 2
    assert phones("one", 0.0, 0.1, speed=2.0).tolist() == [7] * 2 + [9] * 3
    assert phones("another", 0.0, 0.1).tolist() == [-1] * 5


def test_tokens_without_durations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--aligner"):
        PhoneFrames(shards(tmp_path / "tokens", aligned=False))
