"""Decoding frames as they come: `WindowStream`, for decoders that see only so far.

Shapes: n_q quantizers, T frames, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from valle.tokenizers.codecs.base import DecodeStream, Reach, SpeechCodec, SpeechCodes


class WindowStream(DecodeStream):
    """Decodes each new frame together with the frames around it, and keeps what is the new frame's.

    Audio comes `reach.future` frames late. It is what decoding all at once gives as far as the decoder sees no further
    than `reach`; memory and time for a frame do not grow.
    """

    def __init__(self, codec: SpeechCodec, reach: Reach, time_invariant: Tensor | None) -> None:
        super().__init__()
        self.codec = codec
        self.reach = reach
        self.time_invariant = None if time_invariant is None else time_invariant[None]
        self.kept: Tensor | None = None
        self.spoken = 0
        """Frames at the start of `kept` whose audio was given already."""

    def _push(self, codes: Tensor) -> Tensor:
        self.kept = codes if self.kept is None else torch.cat((self.kept, codes), 1)
        return self._speak(self.kept, self.kept.shape[1] - self.reach.future)

    def _finish(self) -> Tensor:
        return torch.zeros(0) if self.kept is None else self._speak(self.kept, self.kept.shape[1])

    def _speak(self, kept: Tensor, end: int) -> Tensor:
        """Audio of the frames up to `end` that was not given yet."""
        if end <= self.spoken:
            return torch.zeros(0, device=kept.device)
        lengths = torch.tensor([kept.shape[1]], device=kept.device)
        hop, forget = self.codec.spec.hop_length, max(0, end - self.reach.past)
        wav = self._decode(SpeechCodes(kept[None], lengths, self.time_invariant), end, forget)
        wav = wav[self.spoken * hop : end * hop]
        self.kept, self.spoken = kept[:, forget:], end - forget
        return wav

    def _decode(self, codes: SpeechCodes, end: int, forget: int) -> Tensor:
        """The waveform [S] of `codes`, of which the frames up to `end` are certain; the first `forget` will be gone."""
        return self.codec.decode(codes)[0, 0]
