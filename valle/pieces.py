"""A text as the decoder gets it: pieces of one sentence each, and the takes of each piece.

Shapes: n_q quantizers, T frames, S samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.joining import pause_after
from valle.lm import Generated, Request, Row
from valle.speech import SpokenPiece
from valle.tokenizers.text import TextTokenizer, split_sentences
from valle.voice import Voice

SENTENCE_CHARACTERS = 200
"""At most so many are spoken in one go."""
DIGIT_CHARACTERS = 5
"""A digit counts as so many: "seven" is what is said."""

VOICE_FRAMES = 250
"""Of the recording at most so many are given to a flow, as in its training."""

BEST_OF = 4
"""Takes among which the best is kept, where nobody waits for the first sound."""

Scorer = Callable[[str, Voice, Sequence[Tensor], int], Sequence[float]]
"""`scorer(text, voice, wavs, sample_rate)` gives one number for each of `wavs` [S]; the highest is the best take."""


@dataclass(frozen=True)
class Takes:
    """How often each sentence is spoken, and how the best take is chosen."""

    n_best: int = 1
    """Takes among which `scorer` chooses."""
    scorer: Scorer | None = None
    """None: the model's `valle.own_ear.OwnEar`."""
    retries: int = 2
    """More takes where all so far got stuck, repeat themselves or come to no end (`valle.lm.faults`)."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= 100 or not 0 <= self.retries <= 100:
            raise UserError(f"n-best must be 1 to 100 and retries 0 to 100, got {self.n_best} and {self.retries}")


@dataclass(eq=False)
class Take:
    """One reading of a piece.

    codes: [n_q, T], wav: [S], once they have been made
    """

    request: Request
    row: Row | None = None
    said: Generated | None = None
    fault: str = ""
    codes: Tensor | None = None
    wav: Tensor | None = None


@dataclass(eq=False)
class Piece:
    """One sentence, or part of a long one."""

    text: str
    pause: float
    """Seconds of silence behind it."""
    phonemes: Tensor | None = None
    is_silent: bool = False
    """Whether there is nothing in it that could be said, such as a sentence in a script that nobody reads."""
    known: SpokenPiece | None = None
    """How it was spoken before."""
    takes: list[Take] = field(default_factory=list)
    earlier_takes: int = 0
    """Spoken before, and not among `takes`."""
    wanted: int = 1
    chosen: Take | None = None

    @property
    def tried(self) -> int:
        """Takes that were asked of the decoder; one that is remembered was not."""
        return sum(take.row is not None for take in self.takes)

    @property
    def needs_take(self) -> bool:
        return self.known is None and not self.is_silent and self.chosen is None and len(self.takes) < self.wanted


def cut_text(text: str, n_best: int) -> list[Piece]:
    """The pieces of `text`. Raises `UserError` for a text that is empty."""
    if not text.strip():
        raise UserError("the text is empty; give something to say")
    texts = [piece for sentence in split_sentences(text, SENTENCE_CHARACTERS) for piece in _cut_numbers(sentence)]
    # A line of asterisks between two paragraphs is nothing to say, but no mistake either.
    texts = [piece for piece in texts if any(c.isalnum() for c in piece)] or texts
    pieces = [Piece(piece, pause_after(piece), wanted=n_best) for piece in texts]
    pieces[-1].pause = 0.0
    return pieces


def _cut_numbers(sentence: str) -> list[str]:
    """A sentence; one that is long because of its numbers, in pieces."""
    spoken = len(sentence) + (DIGIT_CHARACTERS - 1) * sum(map(str.isdigit, sentence))
    if spoken <= SENTENCE_CHARACTERS:
        return [sentence]
    return split_sentences(sentence, max(1, SENTENCE_CHARACTERS * len(sentence) // spoken))


def make_request(
    phonemes: Tensor, voice: Voice, text: TextTokenizer, seed: int, piece: int, take: int, live: bool = False
) -> Request:
    """What the AR model is asked: take number `take` of piece number `piece` of a text spoken with `seed`.

    live: whether it is heard while it is spoken
    """
    # A hash, because torch's generator looks at no more than 32 bits: of sums and shifts some would come out the same.
    digest = hashlib.blake2s(f"{seed} {piece} {take}".encode(), digest_size=4).digest()
    seed = int.from_bytes(digest) >> 1
    heard = voice.codes[:, :VOICE_FRAMES]
    if voice.phonemes is None:
        return Request(phonemes, voice.time_invariant, seed=seed, voice_codes=heard, live=live)
    if int(voice.phonemes[-1]) in text.boundary_ids and int(phonemes[0]) in text.boundary_ids:
        phonemes = phonemes[1:]  # words have one boundary between them, and the prompt ends with it
    known = torch.cat((voice.phonemes, phonemes))
    return Request(known, voice.time_invariant, voice.codes, len(voice.phonemes), voice.durations, seed, heard, live)
