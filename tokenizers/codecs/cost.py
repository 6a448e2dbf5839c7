"""What a codec costs to run: parameters and multiply-accumulates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from valle.tokenizers.codecs.base import SpeechCodec


@dataclass(frozen=True)
class Cost:
    """parameters: numbers that are stored, codebooks included; the others: multiply-accumulates per second of speech"""

    parameters: int
    encode_macs: float
    decode_macs: float


def measure_cost(codec: SpeechCodec, frames: int = 32) -> Cost:
    """Count what encoding and decoding `frames` of noise takes; whole blocks, which some decoders fill up.

    Counted are convolutions, matrix products, attention, LSTMs and the search of codebooks; not Fourier transforms,
    normalisations and activations, which published figures leave out as well.
    """
    device = next(codec.parameters()).device
    wav = torch.randn(1, 1, frames * codec.spec.hop_length, device=device)
    seconds = frames / codec.spec.frame_rate
    if not any(isinstance(module, nn.LSTM) for module in codec.modules()):
        return _count(codec, wav, seconds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a setting of Intel's GPUs that this one touches
        # oneDNN hides the matrix products of an LSTM from the counter.
        with torch.backends.mkldnn.flags(enabled=False):
            return _count(codec, wav, seconds)


@torch.no_grad()
def _count(codec: SpeechCodec, wav: Tensor, seconds: float) -> Cost:
    with FlopCounterMode(display=False) as encoding:
        codes = codec.encode(wav)
    with FlopCounterMode(display=False) as decoding:
        codec.decode(codes)
    stored = sum(tensor.numel() for tensor in codec.state_dict().values() if tensor.is_floating_point())
    return Cost(stored, encoding.get_total_flops() / 2 / seconds, decoding.get_total_flops() / 2 / seconds)
