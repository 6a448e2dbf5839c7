"""Training data of codecs: random segments of an audio pool, as a Lightning data module."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from valle.common.errors import UserError
from valle.data.audio_pool import AudioPool
from valle.data.loader import BatchPlan, ResumableLoader
from valle.data.phone_frames import PhoneFrames
from valle.data.split import held_out


@dataclass
class SegmentBatch:
    """Two random segments of each of B utterances (the pair is what TiCodec's consistency loss needs, eq. 1).

    wav, wav2:  FloatTensor [B, 1, S] and [B, 1, S'], zeros beyond the end of a short utterance
    speakers:   LongTensor [B], a number for each speaker's name
    phones:     LongTensor [B, T], the text token spoken in each codec frame of `wav`, -1 where it is not known
    """

    wav: Tensor
    wav2: Tensor
    speakers: Tensor
    phones: Tensor | None = None


@dataclass
class WholeBatch:
    """Whole utterances for validation, cropped to a common maximum.

    wav:      FloatTensor [B, 1, S], zeros beyond the length
    lengths:  LongTensor [B], samples
    """

    wav: Tensor
    lengths: Tensor


class SegmentDataset(Dataset):
    """`dataset[step]` is a `SegmentBatch` that depends on the seed, the step and the rank, and nothing else.

    Utterances are drawn in proportion to their duration: every second of audio is seen equally often.
    `speeds`: both segments are played at one of these, drawn at random. Pitch, formants and tempo change together, and
    so each makes another speaker of everyone (speed perturbation; Ko et al., 2015).
    `max_gain_db`: both segments are made louder or softer by the same random amount, never to clip.
    `phones`: says what is spoken in the first segment; without it batches have no phones.
    """

    def __init__(
        self,
        pool: AudioPool,
        segment_samples: int,
        batch_size: int,
        seed: int,
        max_gain_db: float = 0.0,
        rank: int = 0,
        reference_samples: int | None = None,
        phones: PhoneFrames | None = None,
        speeds: Sequence[float] = (1.0,),
    ) -> None:
        self.pool = pool
        self.speeds = np.array(speeds)
        self.phones = phones
        self.segment_samples = segment_samples
        self.reference_samples = reference_samples or segment_samples
        self.batch_size = batch_size
        self.seed = seed
        self.max_gain_db = max_gain_db
        self.rank = rank
        self._ends = np.cumsum(pool.lengths)
        self._speakers = np.array([zlib.crc32(name.encode()) for name in pool.speakers])

    def __getitem__(self, step: int) -> SegmentBatch:
        rng = np.random.default_rng((self.seed, step, self.rank))
        utterances = np.searchsorted(self._ends, rng.integers(self._ends[-1], size=self.batch_size), side="right")
        speeds = self.speeds[rng.integers(len(self.speeds), size=self.batch_size)]
        (first, starts), (second, _) = (
            self._segments(utterances, speeds, size, rng) for size in (self.segment_samples, self.reference_samples)
        )
        gain = 10 ** (torch.from_numpy(rng.uniform(-1, 1, self.batch_size)).float() * self.max_gain_db / 20)
        peak = torch.maximum(first.abs().amax(1), second.abs().amax(1)).clamp_min(1e-4)
        gain = torch.minimum(gain, (1 / peak).clamp_min(1))[:, None]
        phones = None
        if self.phones is not None:
            seconds = self.segment_samples / self.pool.sample_rate
            excerpts = zip(utterances, starts, speeds, strict=True)
            phones = torch.stack([self.phones(self.pool.ids[u], s, seconds, speed) for u, s, speed in excerpts])
        # A speaker at another speed is another speaker.
        speakers = torch.from_numpy(self._speakers[utterances] + np.round(1000 * (speeds - 1)).astype(int))
        return SegmentBatch((first * gain)[:, None], (second * gain)[:, None], speakers, phones)

    def _segments(
        self, utterances: np.ndarray, speeds: np.ndarray, size: int, rng: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """One random segment of `size` samples of each utterance, [B, size], and where they begin, [B], in seconds."""
        taken = np.round(size * speeds).astype(int)
        offsets = rng.integers(np.maximum(self.pool.lengths[utterances] - taken, 0) + 1)
        segments = [
            self._resized(self.pool.segment(u, int(o), int(n)), size)
            for u, o, n in zip(utterances, offsets, taken, strict=True)
        ]
        return torch.stack(segments), offsets / self.pool.sample_rate

    @staticmethod
    def _resized(wav: Tensor, size: int) -> Tensor:
        """`wav` [S] resampled to `size` samples."""
        if len(wav) == size:
            return wav
        played = torch.from_numpy(soxr.resample(wav.numpy(), len(wav), size))[:size]
        return F.pad(played, (0, size - len(played)))


class _Steps(BatchPlan):
    """Steps 0, 1, 2, … in epochs of equal size."""

    def __init__(self, per_epoch: int, fingerprint: str) -> None:
        self.per_epoch = per_epoch
        self.fingerprint = fingerprint

    def epoch(self, epoch: int) -> range:
        return range(epoch * self.per_epoch, (epoch + 1) * self.per_epoch)


class CodecDataModule(LightningDataModule):
    """Segments of a prepared corpus for `valle train codec`.

    Parameters
    ----------
    cuts:            cut manifest made by `valle prepare` (text is not needed)
    cache_dir:       where the decoded audio pool is kept
    sample_rate:     Hz, the codec's
    segment_samples: length of a training segment, samples
    reference_samples: length of the second segment of each pair; default the same
    batch_size:      pairs of segments in a batch (of each rank)
    steps_per_epoch: batches that Lightning is told to be an epoch
    max_gain_db:     random gain of a pair of segments, uniform in +- this; 0 turns it off
    speeds:          speeds at which segments are played, each with the same chance, see `SegmentDataset`
    phone_tokens:    folder made by `valle tokenize --aligner` with any codec of the same frame rate: says what is
                     spoken in which frame, for the codec's loss `phones`; utterances that it lacks have no phones
    val_cuts:        manifest of the validation utterances; else a part of the data is held out
    val_fraction, val_by: share of the data held out, by "speaker" (new voices) or by "utterance"
    val_utterances:  at most this many validation utterances, spread evenly over the held-out ones
    val_seconds:     validation utterances are cropped to this

    Segments are drawn at random without end, so an "epoch" is just `steps_per_epoch` batches. The position is part of
    every checkpoint: a resumed run sees the batches that an uninterrupted one would.
    """

    def __init__(
        self,
        cuts: str,
        cache_dir: str,
        sample_rate: int = 16000,
        segment_samples: int = 16000,
        reference_samples: int | None = None,
        batch_size: int = 16,
        steps_per_epoch: int = 1000,
        seed: int = 0,
        num_workers: int = 0,
        max_gain_db: float = 0.0,
        speeds: list[float] | None = None,
        phone_tokens: str | None = None,
        val_cuts: str | None = None,
        val_fraction: float = 0.02,
        val_by: Literal["speaker", "utterance"] = "speaker",
        val_utterances: int = 64,
        val_batch_size: int = 8,
        val_seconds: float = 6.0,
    ) -> None:
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise UserError(f"val_fraction is a share of the data, 0 to below 1, got {val_fraction}")
        sizes = {"segment_samples": segment_samples, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        self.cuts = cuts
        self.cache_dir = cache_dir
        self.sample_rate = sample_rate
        self.segment_samples = segment_samples
        self.reference_samples = reference_samples
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.num_workers = num_workers
        self.max_gain_db = max_gain_db
        self.speeds = speeds or [1.0]
        if not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise UserError(f"speeds must be between 0.5 and 2, got {self.speeds}")
        self.phone_tokens = phone_tokens
        self.val_cuts = val_cuts
        self.val_fraction = val_fraction
        self.val_by = val_by
        self.val_utterances = val_utterances
        self.val_batch_size = val_batch_size
        self.val_samples = round(val_seconds * sample_rate)

    def prepare_data(self) -> None:
        for cuts in filter(None, (self.cuts, self.val_cuts)):
            AudioPool.build(cuts, self.cache_dir, self.sample_rate)

    def setup(self, stage: str | None = None) -> None:
        pool = AudioPool.build(self.cuts, self.cache_dir, self.sample_rate)
        if self.val_cuts:
            self.train_pool, self.val_pool = pool, AudioPool.build(self.val_cuts, self.cache_dir, self.sample_rate)
        else:
            validation = held_out(self.val_by, pool.ids, pool.speakers, pool.seconds, self.val_fraction)
            self.train_pool, self.val_pool = pool.subset(~validation), pool.subset(validation)

    def train_dataloader(self) -> ResumableLoader:
        rank = self.trainer.global_rank if self.trainer else 0
        dataset = SegmentDataset(
            self.train_pool,
            self.segment_samples,
            self.batch_size,
            self.seed,
            self.max_gain_db,
            rank,
            self.reference_samples,
            PhoneFrames(self.phone_tokens) if self.phone_tokens else None,
            self.speeds,
        )
        plan = _Steps(self.steps_per_epoch, f"{len(self.train_pool)} utterances with seed {self.seed}")
        return ResumableLoader(dataset, plan, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        count = min(self.val_utterances, len(self.val_pool))
        chosen = np.linspace(0, len(self.val_pool) - 1, count).round().astype(int).tolist()
        return DataLoader(chosen, batch_size=self.val_batch_size, collate_fn=self._whole_batch)

    def _whole_batch(self, utterances: list[int]) -> WholeBatch:
        lengths = torch.tensor([min(int(self.val_pool.lengths[u]), self.val_samples) for u in utterances])
        wav = torch.stack([self.val_pool.segment(u, 0, int(lengths.max())) for u in utterances])
        return WholeBatch(wav[:, None], lengths)
