"""Reading lists of trials: shipped ones, tables, the meta files of Seed-TTS-eval, and corpora of recordings."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from valle.common.errors import UserError
from valle.eval.lists import (
    RECORDINGS,
    SENTENCES,
    SENTENCES_100,
    SENTENCES_ENDS,
    Recording,
    check_rows,
    choose_prompts,
    find_listed,
    read_list,
    read_rows,
    read_sentences,
    read_text,
)
from valle.eval.trials import Clip, Trial, continuation, cross_sentence, deal, each
from valle.eval.word_times import WordTimer

SHIPPED = {
    "plain50": "10 plain sentences in each of 5 unseen voices",
    "plain100": "100 plain sentences of 5 to 25 words, 20 in each of 5 unseen voices",
    "ends50": "50 short texts that end in every mark and in none, each kind once in each of 5 unseen voices",
}
_DEALT = {"plain100": SENTENCES_100, "ends50": SENTENCES_ENDS}
PROTOCOLS = ("sentences", "cross-sentence", "continuation")
_COLUMNS = ("id", "prompt", "text")
Drawn = TypeVar("Drawn", Trial, Recording)


@dataclass(frozen=True)
class TrialList:
    """Trials, and real recordings of their speakers for the context (none where the trials have references)."""

    trials: list[Trial]
    recordings: list[Recording] = field(default_factory=list)


def open_list(
    source: str,
    protocol: str | None = None,
    sentences: Path | None = None,
    sample: int | None = None,
    sample_seed: int = 0,
) -> TrialList:
    """The list called or stored at `source`.

    source:    a name in `SHIPPED`; a table of trials (id prompt text [prompt_text speaker reference]) or of recordings
               (id path speaker text); a meta.lst of Seed-TTS-eval; a folder in the layout of LibriSpeech or LibriTTS
    protocol:  what to make of recordings and corpora, one of `PROTOCOLS`; default: sentences for a table,
               cross-sentence for a corpus
    sentences: file with the sentences of the first protocol; default: the 10 shipped ones
    sample:    draw so many trials at random, and the same share of the recordings of their speakers; None: all
    Raises `UserError` for what is missing, malformed or of no use together.
    """
    if sample is not None and sample < 1:
        raise UserError(f"--sample {sample}: draw at least one text")
    if source in SHIPPED:
        if protocol or (sentences and source != "plain50"):
            raise UserError(f"--list {source} is complete: leave out --protocol and --sentences")
        recordings = read_list(RECORDINGS)
        prompts = choose_prompts(recordings)
        if source in _DEALT:
            trials = deal(prompts, read_sentences(_DEALT[source]))
        else:
            trials = each(prompts, read_sentences(sentences or SENTENCES))
        return _drawn(TrialList(trials, recordings), sample, sample_seed)
    path = Path(source)
    if path.is_dir():
        return _of_recordings(read_corpus(path), protocol or "cross-sentence", sentences, sample, sample_seed)
    if not path.exists():
        raise UserError(f"--list {source} is no file or folder, and no shipped list ({', '.join(SHIPPED)})")
    if path.suffix == ".tsv" and {"path", "speaker"} <= set(_header(path)):
        return _of_recordings(read_list(path), protocol or "sentences", sentences, sample, sample_seed)
    if protocol or sentences:
        raise UserError(f"{path} lists trials: --protocol and --sentences are for recordings")
    trials = read_seed_tts(path) if path.suffix == ".lst" else read_trials(path)
    return _drawn(TrialList(trials), sample, sample_seed)


def read_trials(path: Path) -> list[Trial]:
    """A tab-separated table with a header naming `id prompt text`, and `prompt_text speaker reference` if known.

    Paths are relative to it. Without speakers each prompt counts as one.
    """
    return _trials(path, read_rows(path, _COLUMNS))


def read_seed_tts(path: Path) -> list[Trial]:
    """A meta.lst of Seed-TTS-eval: `id|prompt text|prompt audio|text`, and `|audio of the text` where there is one."""
    names = ("id", "prompt_text", "prompt", "text", "reference")
    rows = []
    for n, line in enumerate(read_text(path).splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("|")]
        if not line.strip():
            continue
        if len(cells) not in (4, 5):
            raise UserError(f"{path}, line {n}: {len(cells)} fields; write id|prompt text|prompt audio|text")
        rows.append((n, dict(zip(names, cells, strict=False))))
    return _trials(path, rows)


def read_corpus(root: Path) -> list[Recording]:
    """All transcribed recordings below a folder in the layout of LibriSpeech or LibriTTS, in the order of their ids."""
    found = []
    for transcript in sorted(root.rglob("*.trans.txt")):  # LibriSpeech: one file a chapter
        for line in read_text(transcript).splitlines():
            id_, _, text = line.partition(" ")
            found.append(Recording(id_, transcript.parent / f"{id_}.flac", id_.split("-")[0], text))
    for transcript in sorted(root.rglob("*.normalized.txt")):  # LibriTTS: one beside each recording
        id_ = transcript.name.removesuffix(".normalized.txt")
        found.append(Recording(id_, transcript.parent / f"{id_}.wav", id_.split("_")[0], read_text(transcript).strip()))
    there = sorted((r for r in found if r.path.is_file() and r.text), key=lambda r: r.id)
    if not there:
        raise UserError(
            f"{root} has no recordings in the layout of LibriSpeech (*.trans.txt) or LibriTTS (*.normalized.txt)"
        )
    return there


def _of_recordings(
    recordings: list[Recording], protocol: str, sentences: Path | None, sample: int | None, sample_seed: int
) -> TrialList:
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol '{protocol}'; known ones: {', '.join(PROTOCOLS)}")
    if protocol == "sentences":
        trials = each(choose_prompts(recordings), read_sentences(sentences or SENTENCES))
        return _drawn(TrialList(trials, recordings), sample, sample_seed)
    if sentences:
        raise UserError("--sentences is for the protocol 'sentences'")
    make = cross_sentence if protocol == "cross-sentence" else continuation
    return TrialList(make(recordings, WordTimer(), sample, sample_seed))


def _drawn(listed: TrialList, sample: int | None, seed: int) -> TrialList:
    """`sample` of the trials at random, and the same share of the recordings of each of their speakers; None: all.

    At least two recordings of a speaker, so that there is a likeness of one voice to itself.
    """
    if sample is None:
        return listed
    if sample > len(listed.trials):
        raise UserError(f"--sample {sample}: the list has {len(listed.trials)} texts to draw from")
    trials = _draw(listed.trials, sample, seed)
    recordings: list[Recording] = []
    for speaker in dict.fromkeys(trial.speaker for trial in trials):
        own = [recording for recording in listed.recordings if recording.speaker == speaker]
        share = math.ceil(len(own) * sample / len(listed.trials))
        recordings += _draw(own, min(max(share, 2), len(own)), seed)
    return TrialList(trials, recordings)


def _draw(items: list[Drawn], n: int, seed: int) -> list[Drawn]:
    """`n` of them at random, in their order."""
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), n))]


def _trials(path: Path, rows: Iterable[tuple[int, dict[str, str]]]) -> list[Trial]:
    trials = []
    for where, row in check_rows(path, rows, _COLUMNS):
        prompt = find_listed(where, path.parent / row["prompt"])
        reference = Clip(find_listed(where, path.parent / row["reference"])) if row.get("reference") else None
        name = row["prompt"].replace("/", "_").rsplit(".", 1)[0]
        speaker, prompt_text = row.get("speaker") or name, row.get("prompt_text") or None
        trials.append(Trial(row["id"], row["text"], speaker, Clip(prompt), name, prompt_text, reference))
    if not trials:
        raise UserError(f"{path} lists no trials")
    return trials


def _header(path: Path) -> list[str]:
    lines = read_text(path).splitlines()
    return lines[0].split("\t") if lines else []
