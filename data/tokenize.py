"""Cuts -> shards of phonemes and codes.

The n-th shard holds the n-th `shard_size` cuts of the manifest and appears whole or not at all. So the files
themselves say what is done: a killed run is started again and makes the shards that are missing, and any number of
processes or machines share the work by each taking every k-th shard.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from valle.common.errors import UserError
from valle.common.tables import plain_table
from valle.data.cuts import cut_audio, cut_language, cut_speaker, cut_text, load_cuts, manifest_hash
from valle.data.shards import Drop, TokenHeader, TokenizedUtterance, read_metadata, shard_path, write_shard
from valle.tokenizers.codecs.base import SpeechCodec, SpeechCodes
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.registry import load_codec
from valle.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from lhotse.cut import DataCut


_READERS = 4
"""Threads that decode audio."""
DISGUISE_TONE = 0.4
"""How far the tone of a disguise goes, see `Disguise.draw`."""


class DurationAligner(Protocol):
    """What finds the durations; `valle.data.aligner.Aligner` is one."""

    vocab: list[str]
    """The tokens that the phoneme ids stand for."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the durations could."""

    def align(
        self, phonemes: Sequence[Sequence[int]], wavs: Sequence[Tensor], n_frames: Sequence[int]
    ) -> list[list[int] | None]:
        """Frames of each phoneme, summing to `n_frames`, of waveforms [S] at the codec's rate; None: not alignable."""


def rounded_seconds(cut: DataCut) -> int:
    """A cut's share of the progress bar; whole numbers, so that the shares add up to the total."""
    return round(cut.duration)


class ShardMaker:
    """Makes one shard after another.

    Utterances of similar duration are encoded together, at most `batch_seconds` of them when padded. What cannot be
    tokenized is left out and accounted for in the shard.
    """

    def __init__(
        self,
        out: Path,
        header: TokenHeader,
        codec: SpeechCodec,
        text_tokenizer: TextTokenizer,
        aligner: DurationAligner | None,
        batch_seconds: float,
    ) -> None:
        self.out = out
        self.header = header
        self.codec = codec
        self.device = next(codec.parameters()).device
        self.text_tokenizer = text_tokenizer
        self.aligner = aligner
        self.batch_seconds = batch_seconds
        self._random = torch.Generator()

    def make(self, index: int, cuts: list[DataCut], progress: Callable[[int], object]) -> None:
        """Write shard `index`; `progress` is given the seconds of each batch that is done."""
        self._random.manual_seed(index)
        dropped: list[Drop] = []
        done: dict[str, TokenizedUtterance] = {}
        for batch in self._batches(cuts):
            done.update((u.id, u) for u in self._tokenized(batch, dropped))
            progress(sum(map(rounded_seconds, batch)))
        in_order = [done[c.id] for c in cuts if c.id in done]
        write_shard(shard_path(self.out, index), self.header, in_order, dropped)

    def _batches(self, cuts: list[DataCut]) -> Iterator[list[DataCut]]:
        batch: list[DataCut] = []
        for cut in sorted(cuts, key=lambda c: (c.duration, c.id)):
            if batch and cut.duration * (len(batch) + 1) > self.batch_seconds:
                yield batch
                batch = []
            batch.append(cut)
        if batch:
            yield batch

    def _tokenized(self, cuts: list[DataCut], dropped: list[Drop]) -> Iterator[TokenizedUtterance]:
        """The utterances of one batch; those that fail are added to `dropped`."""
        spoken = []
        for cut in cuts:  # one after the other: espeak-ng is not made for threads
            phonemes = self._phonemes(cut)
            if isinstance(phonemes, Drop):
                dropped.append(phonemes)
            else:
                spoken.append((cut, phonemes))
        with ThreadPool(_READERS) as pool:
            wavs = pool.map(self._audio, [cut for cut, _ in spoken])
        dropped += [wav for wav in wavs if isinstance(wav, Drop)]
        rows = [(cut, ids, wav) for (cut, ids), wav in zip(spoken, wavs, strict=True) if not isinstance(wav, Drop)]
        if rows:
            yield from self._encoded(rows, dropped)

    def _encoded(
        self, rows: list[tuple[DataCut, list[int], Tensor]], dropped: list[Drop]
    ) -> Iterator[TokenizedUtterance]:
        cuts, phonemes, wavs = (list(column) for column in zip(*rows, strict=True))
        codes = self._encode(wavs)
        durations: Sequence[list[int] | None] = [None] * len(cuts)
        if not self.header.has_text:
            durations = [[frames] for frames in codes.lengths.tolist()]
        elif self.aligner is not None:
            durations = self.aligner.align(phonemes, wavs, codes.lengths.tolist())
        for i, cut in enumerate(cuts):
            duration = durations[i]
            if self.aligner is not None and duration is None:
                dropped.append(
                    Drop(cut.id, "not aligned", "the text is too long for the speech, or not what is spoken")
                )
                continue
            one = codes[i]
            yield TokenizedUtterance(
                id=cut.id,
                speaker=cut_speaker(cut) if self.header.speed == 1 else f"{cut_speaker(cut)}@{self.header.speed:g}",
                text=cut_text(cut),
                phonemes=torch.tensor(phonemes[i]),
                codes=one.codes[0],
                time_invariant=None if one.time_invariant is None else one.time_invariant[0],
                durations=None if duration is None else torch.tensor(duration),
                language=cut_language(cut),
            )

    def _phonemes(self, cut: DataCut) -> list[int] | Drop:
        if not self.header.has_text:
            return [self.text_tokenizer.unk_id]
        text = cut_text(cut)
        if not text:
            return Drop(cut.id, "no text", "the cut has no transcript")
        try:
            return self.text_tokenizer.encode(text, cut_language(cut))
        except UserError as error:
            return Drop(cut.id, "text", str(error))

    def _audio(self, cut: DataCut) -> Tensor | Drop:
        try:
            return cut_audio(cut, self.header.codec.sample_rate, self.header.speed)
        except UserError as error:
            return Drop(cut.id, "unreadable", str(error))

    @torch.inference_mode()
    def _encode(self, wavs: list[Tensor]) -> SpeechCodes:
        padded = pad_sequence(wavs, batch_first=True)[:, None]
        lengths = torch.tensor([len(wav) for wav in wavs])
        padded, lengths = padded.to(self.device), lengths.to(self.device)
        if self.header.disguise == 1:
            return self.codec.encode(padded, lengths).to("cpu")
        everyone = torch.ones(len(wavs), dtype=torch.bool)
        disguise = Disguise.draw(everyone, self.header.disguise, DISGUISE_TONE, self._random).to(self.device)
        return self.codec.encode_disguised(padded, lengths, disguise).to("cpu")


@dataclass
class TokenizeReport:
    """What is in the folder after a run of `tokenize`."""

    shards: int
    shards_missing: int
    """Not 0 when other parts of a shared job are still to do."""
    utterances: int = 0
    seconds: float = 0.0
    dropped: list[Drop] = field(default_factory=list)

    def table(self) -> str:
        """The statistics as text for a terminal."""
        rows = [
            ("shards", f"{self.shards - self.shards_missing:,} of {self.shards:,}"),
            ("utterances", f"{self.utterances:,}"),
            ("hours", f"{self.seconds / 3600:.2f}"),
            ("dropped", f"{len(self.dropped):,}"),
            *((f"  {reason}", f"{n:,}") for reason, n in Counter(d.reason for d in self.dropped).most_common()),
        ]
        return plain_table(rows, "<>")


def tokenize(
    cuts: str | Path,
    out: str | Path,
    codec_dir: str | Path,
    text_tokenizer: TextTokenizer,
    *,
    aligner: DurationAligner | None = None,
    device: str = "cpu",
    batch_seconds: float = 60.0,
    shard_size: int = 500,
    speed: float = 1.0,
    disguise: float = 1.0,
    has_text: bool = True,
    jobs: int = 1,
    part: int = 0,
    parts: int = 1,
) -> TokenizeReport:
    """Tokenize a cut manifest into the folder `out`, or finish what an earlier run began.

    Parameters
    ----------
    aligner:        finds the durations; without one the shards have none
    batch_seconds:  padded seconds that the codec encodes at once
    speed:          at which the recordings are played. Pitch, formants and tempo change together, and so it makes other
                    speakers of the same corpus (speed perturbation; Ko et al., 2015): train on several such folders
    disguise:       not 1: quantizer 1 hears speech disguised by up to this factor (`SpeechCodec.encode_disguised`)
    has_text:       False: the texts are not looked at, and need not be there. Disguised tokens and those without text
                    are for flow models only
    jobs:           processes on this machine; with `device` "cuda" they share its GPUs evenly
    part, parts:    this run does the shards `part`, `part + parts`, … of all; for several machines or GPUs

    Utterances that cannot be tokenized (unreadable, no text, …) are left out and listed with their reason in
    `dropped.tsv`. Raises `UserError` when `out` was made from other cuts or with another codec, text tokenizer or
    aligner.
    """
    for name, value, good in (
        ("part", part, 0 <= part < parts),
        ("jobs", jobs, jobs >= 1),
        ("shard_size", shard_size, shard_size >= 1),
        ("batch_seconds", batch_seconds, batch_seconds > 0),
        ("speed", speed, 0.5 <= speed <= 2),
        ("disguise", disguise, 1 <= disguise <= 2),
    ):
        if not good:
            raise UserError(f"tokenize: {name} cannot be {value}" + (f" of {parts}" if name == "part" else ""))
    if aligner and list(aligner.vocab) != text_tokenizer.vocab:
        raise UserError("the aligner was made for another text tokenizer; adapt it (Aligner.adapted) or train another")
    out = Path(out)
    all_cuts = list(load_cuts(cuts))
    codec = load_codec(codec_dir, device)
    aligner_hash = aligner.fingerprint if aligner else None
    header = TokenHeader.made_with(
        codec,
        text_tokenizer,
        aligner_hash,
        manifest_hash(cuts),
        len(all_cuts),
        shard_size,
        speed,
        disguise,
        has_text,
    )
    _begin(out, header, cuts)
    groups = {i: all_cuts[i * shard_size : (i + 1) * shard_size] for i in range(part, header.shards, parts)}
    missing = {i: group for i, group in groups.items() if not shard_path(out, i).exists()}
    total, to_do = _seconds(groups.values()), _seconds(missing.values())
    with tqdm(desc="tokenizing", total=total, initial=total - to_do, unit=" s of audio", unit_scale=True) as bar:
        if jobs == 1:
            maker = ShardMaker(out, header, codec, text_tokenizer, aligner, batch_seconds)
            for index, group in missing.items():
                maker.make(index, group, bar.update)
        else:
            settings = (out, header, codec_dir, device, text_tokenizer, aligner, batch_seconds)
            _make_in_processes(settings, missing, jobs, bar)
    report = _report(out, header)
    if report.utterances == 0 and report.shards_missing == 0:
        for index in range(header.shards):  # what made every one fail is not worth keeping: it may be put right
            shard_path(out, index).unlink()
        first = report.dropped[0]
        raise UserError(f"every utterance was dropped, the first ('{first.id}') as {first.reason}: {first.detail}")
    return report


def _seconds(groups: Iterable[list[DataCut]]) -> int:
    return sum(rounded_seconds(cut) for group in groups for cut in group)


def _begin(out: Path, header: TokenHeader, cuts: str | Path) -> None:
    """Write the header, or check that the one that is there says the same."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "header.json").exists():
        header.write(out)
    existing = TokenHeader.read(out)
    existing.check_mixes_with(header, str(out), "this run")
    if existing.cuts_hash != header.cuts_hash:
        raise UserError(f"{out} holds tokens of other cuts than {cuts}; tokenize into a new folder")
    if existing.shard_size != header.shard_size:
        raise UserError(f"{out} has shards of {existing.shard_size} cuts; use shard_size {existing.shard_size} again")
    for what in ("speed", "disguise", "has_text"):
        if getattr(existing, what) != getattr(header, what):
            raise UserError(f"{out} holds tokens of {what} {getattr(existing, what)}; tokenize into a new folder")


def _make_in_processes(settings: tuple[Any, ...], missing: dict[int, list[DataCut]], jobs: int, bar: tqdm) -> None:
    # A forked process would inherit locks that torch's threads hold, so each is a fresh one that loads its own codec.
    context = get_context("spawn")
    started = context.Value("i", 0)
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(started, *settings)) as pool:
        futures = {pool.submit(_work, index, group): group for index, group in missing.items()}
        try:
            for future in as_completed(futures):
                future.result()
                bar.update(_seconds([futures[future]]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_maker: ShardMaker


def _start_worker(
    started: Any,
    out: Path,
    header: TokenHeader,
    codec_dir: Path,
    device: str,
    text_tokenizer: TextTokenizer,
    aligner: DurationAligner | None,
    batch_seconds: float,
) -> None:
    global _maker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    _maker = ShardMaker(out, header, load_codec(codec_dir, device), text_tokenizer, aligner, batch_seconds)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(index: int, cuts: list[DataCut]) -> None:
    _maker.make(index, cuts, lambda seconds: None)


def _report(out: Path, header: TokenHeader) -> TokenizeReport:
    """Sum up the shards that are there, and list what they dropped in `dropped.tsv`."""
    report = TokenizeReport(header.shards, shards_missing=0)
    for index in range(header.shards):
        path = shard_path(out, index)
        if not path.exists():
            report.shards_missing += 1
            continue
        utterances, dropped = read_metadata(path)
        report.utterances += len(utterances)
        report.seconds += sum(u["frames"] for u in utterances) / header.codec.frame_rate
        report.dropped += dropped
    rows = [f"{d.id}\t{d.reason}\t{' '.join(d.detail.split())}\n" for d in report.dropped]
    (out / "dropped.tsv").write_text("id\treason\tdetail\n" + "".join(rows), encoding="utf-8")
    return report
