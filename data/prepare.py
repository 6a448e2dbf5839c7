"""A corpus as it lies on disk -> lhotse cuts, with an account of everything that was left out and why.

Written into the folder of the corpus:

    cuts.jsonl.gz                  every utterance that was kept; the audio stays where it is
    train, dev, test (.jsonl.gz)   the same, split; no speaker is in two of them, unless the corpus has one or two
    dropped.tsv                    id, path, reason, detail of every utterance that was not
    durations.png                  histograms
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from valle.common.errors import UserError
from valle.common.files import whole
from valle.common.tables import plain_table
from valle.data.corpus import Entry, read_corpus, read_folder, select
from valle.data.cuts import cut_audio, cut_language, cut_text, file_cut, load_cuts
from valle.data.split import ROLES, roles
from valle.tokenizers.text import BPETokenizer

if TYPE_CHECKING:
    from lhotse.cut import DataCut


_FULL_SCALE = 0.999
_SILENT_PEAK = 1e-3
_BINS = 60


@dataclass(frozen=True)
class Kept:
    """One utterance of a prepared corpus."""

    id: str
    speaker: str
    seconds: float
    gender: str = ""
    split: str = ""


@dataclass(frozen=True)
class Limits:
    """What an utterance must be like to be kept."""

    min_seconds: float = 0.5
    max_seconds: float = 30.0
    max_clipped: float = 0.001
    """Share of samples at full scale above which the recording counts as clipped."""
    allow_no_text: bool = False
    """Keep utterances without text (enough for training a codec)."""


@dataclass(frozen=True)
class Dropped:
    """An utterance that was left out; `reason` is a short fixed word, `detail` explains this case."""

    id: str
    path: Path
    reason: str
    detail: str


@dataclass
class PrepareReport:
    """What `prepare_folder` kept and dropped."""

    cuts: Path
    listed: int
    """Utterances that the corpus lists."""
    selected: int
    """Those of them that the filters let through."""
    dropped: list[Dropped] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    """"train", "dev" or "test" for each that was kept."""
    split_by: str = ""
    """How the roles were decided."""

    def table(self) -> str:
        """The statistics as text for a terminal."""
        rows = [
            ("listed", f"{self.listed:,}"),
            ("selected", f"{self.selected:,}"),
            ("kept", f"{len(self.kept):,}"),
            ("dropped", f"{len(self.dropped):,}"),
            *((f"  {reason}", f"{n:,}") for reason, n in Counter(d.reason for d in self.dropped).most_common()),
        ]
        return f"{plain_table(rows, '<>')}\n\n{statistics_table(self.kept, self.roles)}\n(held out: {self.split_by})"


@dataclass(frozen=True)
class HeldOut:
    """Shares of the speech held out for validation and test where the corpus has no splits of its own."""

    dev: float = 0.02
    test: float = 0.02

    def __post_init__(self) -> None:
        if min(self.dev, self.test) < 0 or self.dev + self.test >= 1:
            raise UserError(f"the shares held out must be 0 or more, together below 1, got {self.dev} and {self.test}")


def prepare_folder(
    root: str | Path,
    out: str | Path,
    *,
    where: Mapping[str, Collection[str]] | None = None,
    language: str = "en-us",
    limits: Limits | None = None,
    held_out: HeldOut | None = None,
    jobs: int | None = None,
) -> PrepareReport:
    """Prepare a folder of audio with `.txt` files beside it, or a TSV table (see `valle.data.corpus`).

    Every recording is decoded once to check it, with `jobs` threads (default: one per core).
    `where` keeps rows whose column has one of the values; `language` is for rows that do not say theirs.
    """
    root, limits = Path(root), limits or Limits()
    if root.is_dir():
        entries = read_folder(root)
    elif root.is_file():
        entries = read_corpus(root, text_required=not limits.allow_no_text)
    else:
        raise UserError(f"{root} does not exist; give a folder of audio or a TSV table")
    return prepare_entries(entries, out, where=where, language=language, limits=limits, held_out=held_out, jobs=jobs)


def prepare_entries(
    entries: list[Entry],
    out: str | Path,
    *,
    where: Mapping[str, Collection[str]] | None = None,
    language: str = "en-us",
    limits: Limits | None = None,
    held_out: HeldOut | None = None,
    jobs: int | None = None,
) -> PrepareReport:
    """`prepare_folder` for utterances that were listed in another way."""
    from lhotse import CutSet

    out, limits, held_out = Path(out), limits or Limits(), held_out or HeldOut()
    selected = select(entries, where or {})
    report = PrepareReport(out / "cuts.jsonl.gz", len(entries), len(selected))
    with whole(report.cuts) as temporary:
        with CutSet.open_writer(temporary) as writer:
            for result in _examined(selected, language, limits, jobs or os.cpu_count() or 1):
                if isinstance(result, Dropped):
                    report.dropped.append(result)
                    continue
                report.kept.append(_kept(result))
                writer.write(result)
        _write_dropped(out / "dropped.tsv", report.dropped)
        if not report.kept:
            first = report.dropped[0]
            raise UserError(
                f"every utterance was dropped, the first ('{first.id}') as {first.reason}: {first.detail}; "
                f"see {out / 'dropped.tsv'}"
            )
        kept = report.kept
        report.roles, report.split_by = roles(
            [k.split for k in kept],
            [k.id for k in kept],
            [k.speaker for k in kept],
            [k.seconds for k in kept],
            held_out.dev,
            held_out.test,
        )
        _write_splits(temporary, out, report.roles)
        plot_durations(out / "durations.png", report.kept, report.roles)
    return report


def _kept(cut: DataCut) -> Kept:
    said = cut.supervisions[0]
    return Kept(cut.id, said.speaker, cut.duration, said.gender or "", (said.custom or {}).get("split", ""))


def _write_splits(cuts: Path, out: Path, roles: list[str]) -> None:
    """The lines of `cuts` sorted into a manifest for each role that somebody has."""
    for role in ROLES:
        (out / f"{role}.jsonl.gz").unlink(missing_ok=True)
    with ExitStack() as stack:
        files = {
            role: stack.enter_context(gzip.open(out / f"{role}.jsonl.gz", "wt", encoding="utf-8"))
            for role in sorted(set(roles))
        }
        lines = stack.enter_context(gzip.open(cuts, "rt", encoding="utf-8"))
        for line, role in zip(lines, roles, strict=True):
            files[role].write(line)


def _examined(entries: list[Entry], language: str, limits: Limits, jobs: int) -> Iterator[DataCut | Dropped]:
    seen: set[str] = set()
    with ThreadPool(jobs) as pool:
        results = pool.imap(lambda entry: _examine(entry, language, limits), entries)
        for entry, result in tqdm(
            zip(entries, results, strict=True), total=len(entries), desc="checking audio", unit="utt"
        ):
            if entry.id in seen:
                result = Dropped(entry.id, entry.path, "duplicate id", "an earlier utterance has this id")
            elif not isinstance(result, Dropped):
                seen.add(entry.id)
            yield result


def _examine(entry: Entry, language: str, limits: Limits) -> DataCut | Dropped:
    """The cut of an utterance, or why there is none."""
    from lhotse import SupervisionSegment

    def drop(reason: str, detail: str) -> Dropped:
        return Dropped(entry.id, entry.path, reason, detail)

    if not entry.text and not limits.allow_no_text:
        return drop("no text", "no transcript; needed unless text-less utterances are allowed")
    if not entry.path.is_file():
        return drop("missing", "there is no such file")
    try:
        cut = file_cut(entry.path, entry.id)
        wav = cut_audio(cut, cut.sampling_rate)
    except UserError as error:
        return drop("unreadable", str(error))
    seconds = cut.duration
    if seconds < limits.min_seconds:
        return drop("too short", f"{seconds:.2f} s, the minimum is {limits.min_seconds:g} s")
    if seconds > limits.max_seconds:
        return drop("too long", f"{seconds:.2f} s, the maximum is {limits.max_seconds:g} s")
    if wav.abs().max() < _SILENT_PEAK:
        return drop("silent", f"no sample is above {_SILENT_PEAK:g} of full scale")
    clipped = (wav.abs() >= _FULL_SCALE).float().mean().item()
    if clipped > limits.max_clipped:
        return drop("clipped", f"{clipped:.2%} of the samples are at full scale, at most {limits.max_clipped:.2%} may")
    more = {"split": entry.split, "emotion": entry.fields.get("emotion", "")}
    cut.supervisions = [
        SupervisionSegment(
            id=entry.id,
            recording_id=entry.id,
            start=0.0,
            duration=seconds,
            channel=cut.recording.channel_ids,
            text=entry.text or None,
            language=entry.language or language,
            speaker=entry.speaker,
            gender=entry.gender or None,
            custom={name: value for name, value in more.items() if value} or None,
        )
    ]
    return cut


def _write_dropped(path: Path, dropped: list[Dropped]) -> None:
    lines = ["id\tpath\treason\tdetail", *(f"{d.id}\t{d.path}\t{d.reason}\t{_one_line(d.detail)}" for d in dropped)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def statistics_table(kept: Sequence[Kept], roles: Sequence[str]) -> str:
    """Utterances, hours, speakers and durations of each split, as text for a terminal."""
    header = ["split", "utterances", "hours", "speakers", "f / m", "shortest", "median", "longest"]
    rows = [header]
    for role in (*ROLES, "all"):
        some = [k for k, r in zip(kept, roles, strict=True) if role in (r, "all")]
        if not some:
            continue
        seconds = np.array([k.seconds for k in some])
        genders = {k.speaker: k.gender for k in some}
        counts = [sum(g == letter for g in genders.values()) for letter in "fm"]
        durations = [f"{value:.1f} s" for value in (seconds.min(), np.median(seconds), seconds.max())]
        hours = f"{seconds.sum() / 3600:.2f}"
        rows.append([role, f"{len(some):,}", hours, f"{len(genders):,}", f"{counts[0]} / {counts[1]}", *durations])
    return plain_table(rows, ">")


def plot_durations(path: Path, kept: Sequence[Kept], roles: Sequence[str]) -> None:
    """Write a PNG: a histogram of the durations by split, and of the hours of the speakers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    durations, speakers = figure.subplots(1, 2)
    seconds = [[k.seconds for k, r in zip(kept, roles, strict=True) if r == role] for role in ROLES]
    durations.hist(seconds, bins=_BINS, stacked=True, label=ROLES)
    durations.set(xlabel="seconds of an utterance", ylabel="utterances")
    durations.legend()
    minutes: dict[str, float] = {}
    for k in kept:
        minutes[k.speaker] = minutes.get(k.speaker, 0.0) + k.seconds / 60
    speakers.hist(list(minutes.values()), bins=min(_BINS, max(10, len(minutes) // 4)), color="tab:gray")
    speakers.set(xlabel="minutes of a speaker", ylabel="speakers")
    figure.savefig(path)


def train_bpe(manifests: Sequence[str | Path], out: str | Path, vocab_size: int) -> BPETokenizer:
    """Train on the texts of cut manifests and write the tokenizer as JSON to `out`.

    Numbers and abbreviations are spelled out in the language that most texts are in.
    """
    cuts = [cut for manifest in manifests for cut in load_cuts(manifest)]
    texts = [text for cut in cuts if (text := cut_text(cut))]
    if not texts:
        raise UserError(f"{', '.join(map(str, manifests))}: no cut has a text")
    language = Counter(map(cut_language, cuts)).most_common(1)[0][0]
    tokenizer = BPETokenizer.train(texts, language, vocab_size)
    with whole(out) as part:
        part.write_text(json.dumps(tokenizer.to_dict()), encoding="utf-8")
    return tokenizer
