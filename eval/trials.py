"""What a system is asked to say, and in whose voice: `Trial`, and the ways to make a list of them.

`each` and `deal` give sentences to voices; `cross_sentence` and `continuation` are VALL-E's protocols on a corpus
(arXiv 2301.02111, section 5.1): utterances of 4 to 10 s, prompts of about 3 s.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from torch import Tensor

from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.common.files import whole
from valle.eval.lists import Recording
from valle.eval.word_times import Word

UTTERANCE_SECONDS = (4.0, 10.0)
PROMPT_SECONDS = 3.0

WordTimes = Callable[[Recording], "list[Word] | None"]
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
