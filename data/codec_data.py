"""Training data of codecs: a pool of audio, what is said in it when, and random segments as a Lightning data module.

Decoding compressed audio costs more than a training step of a small codec. So all audio of a corpus is decoded once
into one flat memory-mapped file, from which a segment is one slice: it costs nothing, and the operating system shares
the pages between workers and ranks.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from valle.common.errors import UserError
from valle.data.cuts import cut_audio, cut_speaker, load_cuts, manifest_hash
from valle.data.loader import BatchPlan, ResumableLoader
from valle.data.shards import TokenDataset
from valle.data.split import held_out

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_SCALE = 32767.0


@dataclass
class AudioPool:
    """N utterances as slices of one array.

    samples:  int16 [total samples], memory-mapped
    starts:   int64 [N], first sample of each utterance
    lengths:  int64 [N], samples of each utterance
    """

    sample_rate: int
    ids: list[str]
    speakers: list[str]
    starts: np.ndarray
    lengths: np.ndarray
    samples: np.memmap

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> np.ndarray:
        """Duration of each utterance, float64 [N]."""
        return self.lengths / self.sample_rate

    def segment(self, index: int, offset: int, size: int) -> Tensor:
        """`size` samples of an utterance from `offset` on, float32 [size]; zeros beyond its end."""
        length = max(0, min(size, int(self.lengths[index]) - offset))
        start = int(self.starts[index]) + offset
        out = torch.zeros(size)
        out[:length] = torch.from_numpy(self.samples[start : start + length].astype(np.float32)) / _SCALE
        return out

    def subset(self, mask: np.ndarray) -> AudioPool:
        """The utterances where `mask` [N] is true, over the same samples."""
        index = np.flatnonzero(mask)
        ids, speakers = [self.ids[i] for i in index], [self.speakers[i] for i in index]
        return AudioPool(self.sample_rate, ids, speakers, self.starts[index], self.lengths[index], self.samples)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the file itself: pickled, the memory map would be copied as a whole.
        return {**self.__dict__, "samples": self.samples.filename}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.samples = np.memmap(state["samples"], dtype=np.int16, mode="r")

    @classmethod
    def build(cls, cuts: str | Path, cache_dir: str | Path, sample_rate: int, jobs: int | None = None) -> AudioPool:
        """The pool of a cut manifest, decoded with `jobs` threads (default: one per core) unless it is cached.

        A cache is reused when the manifest's content and the sample rate are the same. Cuts that cannot be read are
        logged and left out. The pool appears in `cache_dir` whole or not at all.
        """
        cuts = Path(cuts)
        if not cuts.is_file():
            raise UserError(f"cut manifest not found: {cuts}; make one with 'valle prepare'")
        folder = Path(cache_dir) / f"pool-{manifest_hash(cuts)}-{sample_rate}"
        if not folder.exists():
            temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
            temporary.mkdir(parents=True)
            try:
                _decode(cuts, temporary, sample_rate, jobs or os.cpu_count() or 1)
                temporary.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was first with the same pool
                    raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> AudioPool:
        """Open a pool that `build` made."""
        folder = Path(folder)
        try:
            index = json.loads((folder / "index.json").read_text())
            version, sample_rate = index["format_version"], index["sample_rate"]
            samples = np.memmap(folder / "samples.i16", dtype=np.int16, mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder} is no whole audio pool ({error}); delete it and it is built again") from error
        if version != FORMAT_VERSION:
            raise UserError(f"{folder} has format version {version}, not {FORMAT_VERSION}; delete it to build it again")
        starts, lengths = (np.array(index["starts"], np.int64), np.array(index["lengths"], np.int64))
        if int(lengths.sum()) != samples.size:
            raise UserError(f"{folder}/samples.i16 has {samples.size} samples, not {lengths.sum()}; delete the folder")
        return cls(sample_rate, index["ids"], index["speakers"], starts, lengths, samples)


def _decode(cuts: Path, folder: Path, sample_rate: int, jobs: int) -> None:
    """Write `samples.i16` and `index.json` into `folder`."""
    ids: list[str] = []
    speakers: list[str] = []
    lengths: list[int] = []
    with (folder / "samples.i16").open("wb") as file:
        for cut_id, speaker, samples in _decoded(cuts, sample_rate, jobs):
            file.write(samples.tobytes())
            ids.append(cut_id)
            speakers.append(speaker)
            lengths.append(samples.size)
    if not ids:
        raise UserError(f"not one cut of {cuts} could be read; see the warnings above")
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    index = {"format_version": FORMAT_VERSION, "sample_rate": sample_rate, "ids": ids, "speakers": speakers}
    (folder / "index.json").write_text(json.dumps({**index, "starts": starts, "lengths": lengths}))


def _decoded(cuts: Path, sample_rate: int, jobs: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """(id, speaker, int16 [S]) of every readable cut, in the manifest's order."""

    def decode(cut: Any) -> tuple[Any, np.ndarray | UserError]:
        try:
            wav = cut_audio(cut, sample_rate)
        except UserError as error:
            return cut, error
        return cut, (wav.clamp(-1, 1) * _SCALE).round().to(torch.int16).numpy()

    all_cuts = load_cuts(cuts)
    # Threads suffice: libsndfile and soxr work outside the interpreter's lock.
    with ThreadPool(jobs) as pool:
        decoded = pool.imap(decode, all_cuts)
        for cut, samples in tqdm(decoded, total=len(all_cuts), desc="decoding audio", unit="utt"):
            if isinstance(samples, UserError):
                log.warning("left out: %s", samples)
            else:
                yield cut.id, cut_speaker(cut), samples


class PhoneFrames:
    """Tokens by utterance and time, from a folder that `valle tokenize --aligner` made.

    The codec with which it was tokenized matters only by its frame rate: that of the tokens given.
    """

    def __init__(self, folder: str | Path) -> None:
        data = TokenDataset([folder])
        if data.header.aligner_hash is None:
            raise UserError(f"{folder} has no durations; tokenize with --aligner")
        if data.header.speed != 1:
            raise UserError(f"{folder} has the durations at speed {data.header.speed:g}; tokenize at speed 1")
        self.frame_rate = data.header.codec.frame_rate
        self._tokens: dict[str, np.ndarray] = {}
        for i, utterance_id in enumerate(data.ids):
            item = data[i]
            assert item.durations is not None
            self._tokens[utterance_id] = item.phonemes.repeat_interleave(item.durations).numpy().astype(np.int16)

    def __call__(self, utterance_id: str, start: float, seconds: float, speed: float = 1.0) -> Tensor:
        """Tokens of the frames of an excerpt, LongTensor [T]; -1 where nothing is known. `start` in seconds.

        `seconds` is what the excerpt lasts when it is played at `speed`. Its frames need not lie on those of the
        corpus: each takes the token at its centre.
        """
        centres = start * self.frame_rate + (np.arange(round(seconds * self.frame_rate)) + 0.5) * speed
        out = torch.full((len(centres),), -1, dtype=torch.long)
        tokens = self._tokens.get(utterance_id)
        if tokens is not None:
            frames = centres.astype(int)
            known = frames < len(tokens)
            out[known] = torch.from_numpy(tokens[frames[known]].astype(np.int64))
        return out


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
