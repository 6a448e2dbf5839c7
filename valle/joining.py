"""Sentences to one recording: short fades at their edges, pauses between them. Shapes: S samples."""

from __future__ import annotations

import torch
from torch import Tensor

FADE_SECONDS = 0.01
"""Shorter than any sound of speech, long enough not to click."""
SENTENCE_PAUSE = 0.15
"""Seconds of silence behind a sentence, besides the one that the model puts at its end."""
CLAUSE_PAUSE = 0.05
"""The same where a long sentence had to be cut."""

_SENTENCE_ENDS = ".!?…。！？．"
_CLOSING = "\"'”’»)]」』 "


def pause_after(text: str) -> float:
    """Seconds of silence between `text` and what follows it."""
    return SENTENCE_PAUSE if text.rstrip(_CLOSING)[-1:] in tuple(_SENTENCE_ENDS) else CLAUSE_PAUSE


class Joiner:
    """Takes the audio of one piece after another, in parts of any size, and gives it faded and with pauses.

    The last `FADE_SECONDS` come late, since nobody knows them to be the last before `end`.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.ramp = torch.linspace(0, 1, int(FADE_SECONDS * sample_rate))
        self.held = torch.zeros(0)
        self.given = 0
        """Samples of this piece that were faded in already."""

    def add(self, wav: Tensor) -> Tensor:
        """The audio [S'] that is certain once `wav` [S] of the current piece has come."""
        ramp = self.ramp[self.given : self.given + len(wav)]
        self.given += len(wav)
        wav = torch.cat((wav[: len(ramp)] * ramp, wav[len(ramp) :]))
        wav = torch.cat((self.held, wav))
        certain = max(0, len(wav) - len(self.ramp))
        self.held = wav[certain:]
        return wav[:certain]

    def end(self, pause: float = 0.0) -> Tensor:
        """The rest of the piece and `pause` seconds of silence; the next `add` starts another piece."""
        size = len(self.held)
        rest = self.held * self.ramp.flip(0)[len(self.ramp) - size :]
        self.held, self.given = torch.zeros(0), 0
        return torch.cat((rest, torch.zeros(int(pause * self.sample_rate))))
