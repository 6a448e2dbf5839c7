"""EnCodec's decoder, frame by frame: it is causal, and its memory is carried from push to push.

Shapes: n_q quantizers, T frames, S samples, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from valle.tokenizers.codecs.base import DecodeStream, SpeechCodes

if TYPE_CHECKING:
    from valle.tokenizers.codecs.encodec import Encodec

START = 7
"""Frames: the first convolution begins with a reflection of so many."""
_FIRST_PAST, _REST_PAST = 6, 2
"""Frames of input before its own that a frame's output depends on: of the first convolution (7 frames wide), and of all
that follows the LSTM (1.5 frames: the first transposed convolution sees one frame back, the others parts of one)."""


class EncodecStream(DecodeStream):
    """Equals decoding all at once. Audio starts with the 7th frame, and is not late from then on."""

    def __init__(self, codec: Encodec) -> None:
        super().__init__()
        self.codec = codec
        layers, memory = codec.decoder.get_submodule("model"), codec.decoder.get_submodule("model.1.lstm")
        assert isinstance(layers, nn.Sequential) and isinstance(memory, nn.LSTM)
        self.first, self.memory, self.rest = layers[0], memory, layers[2:]
        self.start: Tensor | None = None
        """Codes [n_q, T] of the first frames, as long as there are fewer than `START`."""
        self.vectors = self.hidden = torch.zeros(0)
        """The last inputs [1, C, T] of `first` and of `rest`."""
        self.state: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def _push(self, codes: Tensor) -> Tensor:
        if self.state is None:
            codes = codes if self.start is None else torch.cat((self.start, codes), 1)
            if codes.shape[1] < START:
                self.start = codes
                return torch.zeros(0, device=codes.device)
            self.start = None
        if not codes.shape[1]:
            return torch.zeros(0, device=codes.device)
        vectors = self.codec.quantizer.decode(codes.T[None]).transpose(1, 2)
        self.vectors, x = _continue(self.first, self.vectors, vectors, _FIRST_PAST, 1)
        steps = x.permute(2, 0, 1)
        y, self.state = self.memory(steps, self.state)
        hop = self.codec.spec.hop_length
        self.hidden, wav = _continue(self.rest, self.hidden, (y + steps).permute(1, 2, 0), _REST_PAST, hop)
        return wav[0, 0]

    def _finish(self) -> Tensor:
        if self.start is None:
            return torch.zeros(0)
        lengths = torch.tensor([self.start.shape[1]], device=self.start.device)
        return self.codec.decode(SpeechCodes(self.start[None], lengths))[0, 0]


def _continue(layers: nn.Module, past: Tensor, new: Tensor, keep: int, rate: int) -> tuple[Tensor, Tensor]:
    """The last `keep` inputs, and what `layers` make of the `new` ones [1, C, T] after the `past` ones: [1, C', S]."""
    x = torch.cat((past, new), 2) if past.numel() else new
    return x[..., -keep:], layers(x)[..., (x.shape[-1] - new.shape[-1]) * rate :]
