"""What is evaluated on: recordings and sentences, and the trials made of them; `open_list` reads any of them.

`each` and `deal` give sentences to voices; `cross_sentence` and `continuation` are VALL-E's protocols on a corpus
(arXiv 2301.02111, section 5.1): utterances of 4 to 10 s, prompts of about 3 s.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from torch import Tensor

import valle
from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.common.files import whole
from valle.common.tables import read_table
from valle.eval.judges.sphinx import SAMPLE_RATE, SphinxText

_ASSETS = Path(valle.__file__).parent / "assets" / "eval"
RECORDINGS = _ASSETS / "list.tsv"
"""50 utterances of 5 speakers of LibriSpeech test-other."""
SENTENCES = _ASSETS / "sentences.txt"
"""10 plain sentences of 5 to 12 words."""
SENTENCES_100 = _ASSETS / "sentences100.txt"
"""100 plain sentences of 5 to 25 words."""
SENTENCES_ENDS = _ASSETS / "sentences_ends.txt"
"""50 short texts: 5 for each of . ! ? , ; : — … and for none, and 5 headings and items of lists."""

SHIPPED = {
    "plain50": "10 plain sentences in each of 5 unseen voices",
    "plain100": "100 plain sentences of 5 to 25 words, 20 in each of 5 unseen voices",
    "ends50": "50 short texts that end in every mark and in none, each kind once in each of 5 unseen voices",
}
_DEALT = {"plain100": SENTENCES_100, "ends50": SENTENCES_ENDS}
PROTOCOLS = ("sentences", "cross-sentence", "continuation")

UTTERANCE_SECONDS = (4.0, 10.0)
PROMPT_SECONDS = 3.0
_LIST_COLUMNS = ("id", "path", "speaker", "text")
_TRIAL_COLUMNS = ("id", "prompt", "text")


@dataclass(frozen=True)
class Recording:
    """A real recording of a known speaker and text."""

    id: str
    path: Path
    speaker: str
    text: str

    @property
    def seconds(self) -> float:
        """Read from the file's header."""
        try:
            return soundfile.info(str(self.path)).duration
        except (soundfile.LibsndfileError, OSError) as error:
            raise UserError(f"cannot read {self.path} as audio ({error}); mend or remove it from the list") from error


def read_list(path: str | Path = RECORDINGS) -> list[Recording]:
    """Read a tab-separated list with a header line that names `id path speaker text` (other columns are ignored).

    Paths are relative to the list's folder. Raises `UserError` for a missing file or column, an incomplete row, an id
    that comes twice or could not be a file name, and a recording that is not there.
    """
    path = Path(path)
    return [
        Recording(row["id"], _find_listed(where, path.parent / row["path"]), row["speaker"], row["text"])
        for where, row in _check_rows(path, read_table(path, _LIST_COLUMNS), _LIST_COLUMNS)
    ]


def _check_rows(
    path: Path, rows: Iterable[tuple[int, dict[str, str]]], columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """`rows` with where they stand in `path`. Raises `UserError` for an empty cell of `columns`, and for a bad id."""
    seen: set[str] = set()
    for number, row in rows:
        where = f"{path}, line {number}"
        if empty := [column for column in columns if not row.get(column)]:
            raise UserError(f"{where}: '{empty[0]}' is empty; fill it in or remove the line")
        if row["id"] in seen or Path(row["id"]).name != row["id"]:
            raise UserError(f"{where}: id '{row['id']}' comes twice or cannot be a file name; choose another")
        seen.add(row["id"])
        yield where, row


def _find_listed(where: str, path: Path) -> Path:
    """`path`, which the list names at `where`. Raises `UserError` if it is not there."""
    if not path.is_file():
        raise UserError(f"{where}: {path} does not exist; paths are relative to the list's folder")
    return path


def read_sentences(path: str | Path = SENTENCES) -> list[str]:
    """Sentences of a UTF-8 text file, one on a line; empty lines are ignored. Raises `UserError` if there are none."""
    sentences = [line.strip() for line in _read_text(Path(path)).splitlines() if line.strip()]
    if not sentences:
        raise UserError(f"{path} has no sentences; write one on each line")
    return sentences


def choose_prompts(recordings: list[Recording], min_seconds: float = 3.0, max_seconds: float = 8.0) -> list[Recording]:
    """One prompt for each speaker, in the order of the list: the first recording of `min_seconds` to `max_seconds`.

    Raises `UserError` naming a speaker who has none.
    """
    prompts: dict[str, Recording | None] = {}
    for recording in recordings:
        if prompts.get(recording.speaker) is None:
            fits = min_seconds <= recording.seconds <= max_seconds
            prompts[recording.speaker] = recording if fits else None
    for speaker, prompt in prompts.items():
        if prompt is None:
            raise UserError(
                f"speaker {speaker} has no recording of {min_seconds:g} to {max_seconds:g} s to use as prompt; add one"
            )
    return [prompt for prompt in prompts.values() if prompt]


def _read_text(path: Path) -> str:
    """The content of a UTF-8 file. Raises `UserError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as UTF-8 text: {error}") from error


@dataclass(frozen=True)
class Word:
    """A word as transcribed, and where it lies, in seconds."""

    text: str
    start: float
    end: float


class WordTimer:
    """Call it with a recording: its words, or None where one is not in the dictionary or nothing fits."""

    def __init__(self) -> None:
        self._sphinx = SphinxText()

    def __call__(self, recording: Recording) -> list[Word] | None:
        text = recording.text.split()
        words = [spelling(word) for word in text]
        if not all(words) or self._sphinx.unknown(words):
            return None
        wav: np.ndarray = load_audio(recording.path, SAMPLE_RATE).numpy()
        found = self._sphinx.align(words, wav)
        if len(found) != len(text):
            return None
        return [Word(word, start, end) for word, (start, end) in zip(text, found, strict=True)]


def spelling(word: str) -> str:
    """A word of a transcript as the dictionary spells it; "" if nothing is left."""
    return "".join(c for c in word.lower().replace("’", "'") if c.isalpha() or c == "'").strip("'")


WordTimes = Callable[[Recording], list[Word] | None]
"""When each word of a recording is said; None where that cannot be found out."""


@dataclass(frozen=True)
class Clip:
    """A stretch of an audio file, in seconds; `end` None: to its end."""

    path: Path
    start: float = 0.0
    end: float | None = None

    def load(self, sample_rate: int) -> Tensor:
        """The samples [S] at `sample_rate` Hz."""
        wav = load_audio(self.path, sample_rate)
        return wav[round(self.start * sample_rate) : None if self.end is None else round(self.end * sample_rate)]

    def save(self, folder: Path, name: str) -> Path:
        """Put it into `folder` as `name` and the suffix that fits: a copy of a whole file, else a WAV of its rate."""
        cut = self.start > 0 or self.end is not None
        path = folder / f"{name}{'.wav' if cut else self.path.suffix}"
        with whole(path) as part:  # several workers may save the same one at once
            if cut:
                rate = soundfile.info(str(self.path)).samplerate
                save_audio(part, self.load(rate), rate)
            else:
                shutil.copyfile(self.path, part)
        return path


@dataclass(frozen=True)
class Trial:
    """One text to be said in one voice."""

    id: str
    """Also the name of its audio file."""
    text: str
    speaker: str
    prompt: Clip
    prompt_id: str
    """Trials with the same one share their prompt."""
    prompt_text: str | None = None
    """What is said in the prompt, where that is known."""
    reference: Clip | None = None
    """The speaker really saying `text`."""


def each(prompts: Sequence[Recording], sentences: Sequence[str]) -> list[Trial]:
    """Every sentence in every voice; ids are `<prompt id>.<sentence number, from 0>`."""
    return [_say(prompt, i, text) for prompt in prompts for i, text in enumerate(sentences)]


def deal(prompts: Sequence[Recording], sentences: Sequence[str]) -> list[Trial]:
    """Every sentence once, the voices taking turns; grouped by voice, ids as those of `each`."""
    turns = [(i % len(prompts), i, text) for i, text in enumerate(sentences)]
    return [_say(prompts[voice], i, text) for voice, i, text in sorted(turns)]


def cross_sentence(
    corpus: Sequence[Recording], word_times: WordTimes, sample: int | None = None, seed: int = 0
) -> list[Trial]:
    """Utterances of 4 to 10 s said in the voice of 3 s from another utterance of their speaker.

    sample: how many, drawn at random; None: all
    The prompt ends with the last word that ends within its 3 s, so that its transcript is exact. An utterance without
    a usable prompt is passed over. Raises `UserError` if `sample` cannot be had.
    """
    of_speaker: dict[str, list[Recording]] = {}
    for recording in corpus:
        of_speaker.setdefault(recording.speaker, []).append(recording)

    def make(target: Recording, rng: random.Random) -> Trial | None:
        others = [r for r in of_speaker[target.speaker] if r.id != target.id and r.seconds >= PROMPT_SECONDS]
        for other in rng.sample(others, len(others)):
            if cut := _cut(other, word_times):
                prompt = Clip(other.path, 0.0, cut.seconds)
                name = f"{other.id}.prompt"
                return Trial(
                    target.id, target.text, target.speaker, prompt, name, cut.before, reference=Clip(target.path)
                )
        return None

    return _sample(corpus, make, sample, seed)


def continuation(
    corpus: Sequence[Recording], word_times: WordTimes, sample: int | None = None, seed: int = 0
) -> list[Trial]:
    """The rest of utterances of 4 to 10 s, their first 3 s being the prompt (parameters as of `cross_sentence`)."""

    def make(target: Recording, _: random.Random) -> Trial | None:
        cut = _cut(target, word_times)
        if cut is None or not cut.after:
            return None
        prompt, rest = Clip(target.path, 0.0, cut.seconds), Clip(target.path, cut.seconds)
        return Trial(target.id, cut.after, target.speaker, prompt, f"{target.id}.prompt", cut.before, reference=rest)

    return _sample(corpus, make, sample, seed)


@dataclass(frozen=True)
class _Cut:
    seconds: float
    before: str
    after: str


def _cut(recording: Recording, word_times: WordTimes) -> _Cut | None:
    """Where to cut a prompt of about 3 s off `recording`: in the pause or at the border after a word."""
    words = word_times(recording)
    if words is None:
        return None
    n = sum(word.end <= PROMPT_SECONDS for word in words)
    if n == 0 or (n == len(words) and recording.seconds < PROMPT_SECONDS):
        return None
    text = recording.text.split()
    end = words[n].start if n < len(words) else recording.seconds
    return _Cut(min(end, PROMPT_SECONDS), " ".join(text[:n]), " ".join(text[n:]))


def _sample(
    corpus: Sequence[Recording],
    make: Callable[[Recording, random.Random], Trial | None],
    sample: int | None,
    seed: int,
) -> list[Trial]:
    shortest, longest = UTTERANCE_SECONDS
    targets = [recording for recording in corpus if shortest <= recording.seconds <= longest]
    order = random.Random(seed).sample(targets, len(targets)) if sample is not None else targets
    trials = list(_first(sample, (make(target, random.Random(f"{seed}/{target.id}")) for target in order)))
    if not trials or (sample is not None and len(trials) < sample):
        wanted = "any" if sample is None else sample
        raise UserError(
            f"of {len(targets)} utterances of {shortest:g} to {longest:g} s only {len(trials)} can be used, not "
            f"{wanted}: their words must be in the dictionary of pocketsphinx; lower --sample or take a larger corpus"
        )
    return sorted(trials, key=lambda trial: trial.id)


def _first(n: int | None, trials: Iterable[Trial | None]) -> Iterator[Trial]:
    found = 0
    for trial in trials:
        if found == n:
            return
        if trial is not None:
            found += 1
            yield trial


def _say(prompt: Recording, number: int, text: str) -> Trial:
    id_ = f"{prompt.id}.{number:03d}"
    return Trial(id_, text, prompt.speaker, Clip(prompt.path), prompt.id, prompt.text)


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
    return _trials(path, read_table(path, _TRIAL_COLUMNS))


def read_seed_tts(path: Path) -> list[Trial]:
    """A meta.lst of Seed-TTS-eval: `id|prompt text|prompt audio|text`, and `|audio of the text` where there is one."""
    names = ("id", "prompt_text", "prompt", "text", "reference")
    rows = []
    for n, line in enumerate(_read_text(path).splitlines(), start=1):
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
        for line in _read_text(transcript).splitlines():
            id_, _, text = line.partition(" ")
            found.append(Recording(id_, transcript.parent / f"{id_}.flac", id_.split("-")[0], text))
    for transcript in sorted(root.rglob("*.normalized.txt")):  # LibriTTS: one beside each recording
        id_ = transcript.name.removesuffix(".normalized.txt")
        found.append(
            Recording(id_, transcript.parent / f"{id_}.wav", id_.split("_")[0], _read_text(transcript).strip())
        )
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
    for where, row in _check_rows(path, rows, _TRIAL_COLUMNS):
        prompt = _find_listed(where, path.parent / row["prompt"])
        reference = Clip(_find_listed(where, path.parent / row["reference"])) if row.get("reference") else None
        name = row["prompt"].replace("/", "_").rsplit(".", 1)[0]
        speaker, prompt_text = row.get("speaker") or name, row.get("prompt_text") or None
        trials.append(Trial(row["id"], row["text"], speaker, Clip(prompt), name, prompt_text, reference))
    if not trials:
        raise UserError(f"{path} lists no trials")
    return trials


def _header(path: Path) -> list[str]:
    lines = _read_text(path).splitlines()
    return lines[0].split("\t") if lines else []
