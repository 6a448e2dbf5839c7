"""What cloning gives: `Speech`, or `SpeechChunk` after `SpeechChunk`. Shapes: S samples, n_q quantizers, T frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from valle.tokenizers.audio import save_audio


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it went."""

    seconds: float
    """Length of the speech."""
    stop_reason: str
    """"eos" or "end_of_text": complete; "max_length": a sentence was cut off."""
    seed: int
    retries: int
    """Takes thrown away because they got stuck, repeated themselves or came to no end."""
    real_time_factor: float
    """Seconds from asking to the end per second of speech."""
    first_chunk_seconds: float
    """Seconds from asking to the first audio."""
    notes: list[str] = field(default_factory=list)
    """What the user may want to know, one line each."""


@dataclass(frozen=True, kw_only=True)
class Speech(Outcome):
    """The result of `VoiceCloner.clone`.

    wav:   FloatTensor [S]
    codes: LongTensor [n_q, T], all sentences one after another
    """

    wav: Tensor
    sample_rate: int
    codes: Tensor

    def save(self, path: str | Path) -> None:
        """Write the audio; the format follows the file name (.wav, .flac, .ogg, .mp3)."""
        save_audio(path, self.wav, self.sample_rate)


@dataclass(frozen=True)
class SpeechChunk:
    """The next part of the speech. wav: float32 [S], may be empty in the last one."""

    wav: Tensor
    sample_rate: int
    outcome: Outcome | None = None
    """Comes with the last chunk."""

    @property
    def last(self) -> bool:
        return self.outcome is not None
