"""What cloning gives: `Speech`, or `SpeechChunk` after `SpeechChunk`. Shapes: S samples, n_q quantizers, T frames."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from valle.common.audio import save_audio

FAULTS = {
    "max_length": "did not come to an end",
    "stuck": "got stuck in a sound",
    "repeats": "repeats a sound",
    "rushed": "is too fast",
    "unreadable": "was left out: nobody can read it",
}
"""What can be wrong with a piece of speech, in words: what `find_fault` finds, and text that was not spoken."""


@dataclass(frozen=True, kw_only=True)
class SpokenPiece:
    """A sentence, or a part of a long one, as it was spoken.

    codes: LongTensor [n_q, T]; no frames where there was nothing that could be said
    """

    text: str
    codes: Tensor
    fault: str = ""
    """One of `FAULTS`, or "" for none."""
    candidates: int = 0
    """How often it was spoken before one was kept."""
    start: float = 0.0
    """Seconds from the beginning."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it went."""

    seconds: float
    """Length of the speech."""
    stop_reason: str
    """"eos" or "end_of_text": complete; "max_length": a sentence was cut off."""
    seed: int
    retries: int
    """Candidates thrown away because they got stuck, repeated themselves or came to no end."""
    real_time_factor: float
    """Seconds from asking to the end per second of speech."""
    first_chunk_seconds: float
    """Seconds from asking to the first audio."""
    notes: list[str] = field(default_factory=list)
    """What the user may want to know, one line each."""
    pieces: list[SpokenPiece] = field(default_factory=list, repr=False)
    """All that was spoken, in order."""

    @property
    def faulty(self) -> list[dict[str, Any]]:
        """The pieces with a fault, for JSON: `piece` (from 1), `start` in seconds, `text` and `fault`."""
        return [
            {"piece": number, "start": round(piece.start, 3), "text": piece.text, "fault": piece.fault}
            for number, piece in enumerate(self.pieces, start=1)
            if piece.fault
        ]


@dataclass(frozen=True, kw_only=True)
class Speech(Outcome):
    """The result of `VoiceCloner.clone`.

    wav:   FloatTensor [S]
    codes: LongTensor [n_q, T], all sentences one after another
    """

    wav: Tensor
    sample_rate: int
    codes: Tensor

    def save(self, target: str | Path | BinaryIO, format: str | None = None) -> None:
        """Write the audio to a path, or to a file opened for writing.

        format: wav, flac, ogg, mp3 or opus; default: as the path ends, for a file wav
        Raises `UserError` where it cannot be written.
        """
        save_audio(target, self.wav, self.sample_rate, format)

    def __repr__(self) -> str:
        notes = f", {len(self.notes)} notes" if self.notes else ""
        return f"Speech({self.seconds:.2f} s at {self.sample_rate} Hz, {self.stop_reason}, seed {self.seed}{notes})"

    def _repr_html_(self) -> str:
        """A player, for notebooks."""
        return player(self.wav, self.sample_rate, [f"{self.seconds:.1f} s", *self.notes])


def player(wav: Tensor, sample_rate: int, lines: list[str]) -> str:
    """HTML that plays `wav` [S], above what there is to say of it."""
    file = io.BytesIO()
    save_audio(file, wav, sample_rate, "mp3")
    audio = base64.b64encode(file.getvalue()).decode()
    return f'<audio controls src="data:audio/mpeg;base64,{audio}"></audio><br>{html.escape("; ".join(lines))}'


@dataclass(frozen=True)
class SpeechChunk:
    """The next part of the speech. wav: float32 [S], may be empty."""

    wav: Tensor
    sample_rate: int
    outcome: Outcome | None = None
    """Comes with the last chunk."""
    piece: SpokenPiece | None = None
    """Comes with the last audio of a piece."""

    @property
    def last(self) -> bool:
        return self.outcome is not None
