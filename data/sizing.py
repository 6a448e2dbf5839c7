"""How long a corpus will take to tokenize and how much disk, from a sample of it."""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from valle.common.errors import UserError
from valle.common.tables import plain_table
from valle.data.cuts import load_cuts, manifest_hash
from valle.data.shards import TokenHeader, read_metadata, shard_path
from valle.data.tokenize import DurationAligner, ShardMaker
from valle.tokenizers.codecs.registry import load_codec
from valle.tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Sizing:
    """What tokenizing takes, extrapolated from a sample."""

    utterances: int
    hours: float
    """Of the corpus."""
    sample_seconds: float
    """Speech that was tokenized to find out."""
    speed: float
    """Seconds of speech per second of one process."""
    bytes_per_hour: float
    dropped: float
    """Share of the sample that could not be tokenized."""

    def table(self, processes: int, hours: float | None = None) -> str:
        """Time and disk for this corpus, or for `hours` of speech like it, with so many processes in all."""
        hours = self.hours if hours is None else hours
        took = hours / self.speed / processes
        size = hours * self.bytes_per_hour
        rows = [
            ("speech", f"{hours:,.1f} h"),
            ("speed of a process", f"{self.speed:.1f} s of speech per second"),
            ("time", f"{took:,.2f} h with {processes} process{'es' if processes > 1 else ''}"),
            ("disk", f"{size / 1e9:,.3f} GB ({self.bytes_per_hour / 1e6:.2f} MB per hour)"),
            ("dropped", f"{self.dropped:.1%}"),
            ("measured on", f"{self.sample_seconds:.0f} s of speech"),
        ]
        return plain_table(rows)


def size_up(
    cuts: str | Path,
    codec_dir: str | Path,
    text_tokenizer: TextTokenizer,
    *,
    aligner: DurationAligner | None = None,
    device: str = "cpu",
    sample_seconds: float = 120.0,
    batch_seconds: float = 60.0,
) -> Sizing:
    """Tokenize a random `sample_seconds` of a cut manifest, throw the result away, and measure."""
    if sample_seconds <= 0:
        raise UserError(f"the sample must be longer than {sample_seconds:g} s")
    all_cuts = list(load_cuts(cuts))
    sample, total = [], 0.0
    for cut in random.Random(0).sample(all_cuts, len(all_cuts)):
        if total >= sample_seconds:
            break
        sample.append(cut)
        total += cut.duration
    codec = load_codec(codec_dir, device)
    aligner_hash = aligner.fingerprint if aligner else None
    header = TokenHeader.made_with(
        codec, text_tokenizer, aligner_hash, manifest_hash(cuts), len(sample), shard_size=len(sample)
    )
    with tempfile.TemporaryDirectory() as folder:
        maker = ShardMaker(Path(folder), header, codec, text_tokenizer, aligner, batch_seconds)
        maker.make(1, sample[:1], lambda _: None)  # the first use of everything is slow
        start = time.perf_counter()
        maker.make(0, sample, lambda _: None)
        took = time.perf_counter() - start
        path = shard_path(folder, 0)
        _, dropped = read_metadata(path)
        size = path.stat().st_size
    return Sizing(
        utterances=len(all_cuts),
        hours=sum(cut.duration for cut in all_cuts) / 3600,
        sample_seconds=total,
        speed=total / took,
        bytes_per_hour=size / total * 3600,
        dropped=len(dropped) / len(sample),
    )
