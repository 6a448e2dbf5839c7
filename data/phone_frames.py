"""Which text token is spoken at what time, read from a tokenized corpus with durations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.data.shards import TokenDataset


class PhoneFrames:
    """Tokens by utterance and time, from a folder that `valle tokenize --aligner` made.

    The codec with which it was tokenized matters only by its frame rate: that of the tokens given.
    """

    def __init__(self, folder: str | Path) -> None:
        data = TokenDataset([folder])
        if data.header.aligner_hash is None:
            raise UserError(f"{folder} has no durations; tokenize with --aligner")
        if data.header.speed != 1:
            raise UserError(f"{folder} has the durations at speed {data.header.speed:g}; tokenize at speed 1")
        self.frame_rate = data.header.codec.frame_rate
        self._tokens: dict[str, np.ndarray] = {}
        for i, utterance_id in enumerate(data.ids):
            item = data[i]
            assert item.durations is not None
            self._tokens[utterance_id] = item.phonemes.repeat_interleave(item.durations).numpy().astype(np.int16)

    def __call__(self, utterance_id: str, start: float, seconds: float, speed: float = 1.0) -> Tensor:
        """Tokens of the frames of an excerpt, LongTensor [T]; -1 where nothing is known. `start` in seconds.

        `seconds` is what the excerpt lasts when it is played at `speed`. Its frames need not lie on those of the
        corpus: each takes the token at its centre.
        """
        centres = start * self.frame_rate + (np.arange(round(seconds * self.frame_rate)) + 0.5) * speed
        out = torch.full((len(centres),), -1, dtype=torch.long)
        tokens = self._tokens.get(utterance_id)
        if tokens is not None:
            frames = centres.astype(int)
            known = frames < len(tokens)
            out[known] = torch.from_numpy(tokens[frames[known]].astype(np.int64))
        return out
