"""All audio of a corpus, decoded once into one flat memory-mapped file, so that a training segment is one slice.

Decoding compressed audio costs more than a training step of a small codec; read from the pool it costs nothing,
and the operating system shares the pages between workers and ranks.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.errors import UserError
from valle.data.cuts import cut_audio, cut_speaker, load_cuts, manifest_hash

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
