"""How fast codecs encode and decode on this machine, at the sizes they are published in, all in one run."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.tokenizers.codecs.cost import Cost, measure_cost
from valle.tokenizers.codecs.registry import build_codec

PUBLISHED: dict[str, dict[str, Any]] = {
    "spectral": {},
    "vocodec": {},
    "ticodec": {"n_q": 2},
    "hificodec": {},
    "encodec": {"bandwidth": 6.0},
}
"""Codecs and what makes them the published ones."""
YARDSTICK = "hificodec"
"""What the decoders are compared with."""
PACKAGE = "encodec (package)"


@dataclass
class CodecSpeed:
    """What one codec took: `encode_rtf` and `decode_rtf` are seconds per second of speech, the best of all rounds."""

    name: str
    sample_rate: int
    frame_rate: float
    n_q: int
    cost: Cost | None
    """None for a codec that is not ours."""
    encode: Callable[[Tensor], Any] = field(repr=False)
    decode: Callable[[Any], Tensor] = field(repr=False)
    encode_rtf: float = math.inf
    decode_rtf: float = math.inf


def bench_codecs(
    names: Sequence[str] = tuple(PUBLISHED), seconds: float = 5.0, rounds: int = 3, device: str = "cpu"
) -> list[CodecSpeed]:
    """Time each of `names` on `seconds` of noise, one after the other, `rounds` times; EnCodec also in its package.

    Weights are random: a codec takes the time that it takes whatever they are, except for numbers too small for the
    processor's usual arithmetic, which are set to zero here. Raises `UserError` for a codec without published size.
    """
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise UserError(f"no published size of '{unknown[0]}' is known; known codecs: {', '.join(PUBLISHED)}")
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    speeds = [_ours(name, device) for name in names]
    if "encodec" in names:
        speeds.append(_package(device))
    for one_round in range(rounds + 1):
        for speed in speeds:
            _time(speed, seconds, device, count=one_round > 0)  # the first round pays for set-up
    return speeds


def speedup(speeds: Sequence[CodecSpeed]) -> dict[str, float]:
    """How many times faster than `YARDSTICK` each decodes; empty if that was not timed."""
    yardstick = next((s.decode_rtf for s in speeds if s.name == YARDSTICK), None)
    return {} if yardstick is None else {s.name: yardstick / s.decode_rtf for s in speeds}


def _ours(name: str, device: str) -> CodecSpeed:
    codec = build_codec(name, PUBLISHED[name]).to(device).eval()
    spec = codec.spec
    cost = measure_cost(codec)
    return CodecSpeed(name, spec.sample_rate, spec.frame_rate, spec.n_q, cost, codec.encode, codec.decode)


def _package(device: str) -> CodecSpeed:
    """The `encodec` package's own model, which `build_codec` has made importable."""
    from encodec.model import EncodecModel

    with warnings.catch_warnings():
        # The package uses the older of torch's two implementations of weight normalisation.
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False).to(device).eval()
    model.set_target_bandwidth(PUBLISHED["encodec"]["bandwidth"])
    return CodecSpeed(PACKAGE, model.sample_rate, 75.0, 8, None, model.encode, model.decode)


@torch.inference_mode()
def _time(speed: CodecSpeed, seconds: float, device: str, count: bool) -> None:
    wav = torch.randn(1, 1, round(seconds * speed.sample_rate), device=device) / 10
    codes, encoding = _timed(speed.encode, wav)
    _, decoding = _timed(speed.decode, codes)
    if count:
        speed.encode_rtf = min(speed.encode_rtf, encoding / seconds)
        speed.decode_rtf = min(speed.decode_rtf, decoding / seconds)


def _timed(function: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    result = function(argument)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started
