"""Decoding while frames come: the same audio as decoding all at once, whatever the pieces."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.common.audio import load_audio
from valle.tokenizers.codecs import SpeechCodec, SpeechCodes, build_codec, load_codec

ASSETS = Path(__file__).parents[3] / "valle/assets"
CODECS = {
    "hificodec": {"channels": 128, "decoder_channels": 64},
    "ticodec": {"channels": 128, "decoder_channels": 128, "n_q": 2},
    "ticodec at 240": {
        "channels": 128,
        "decoder_channels": 128,
        "upsample_rates": (8, 5, 3, 2),
        "upsample_kernels": (16, 11, 7, 4),
    },
    "encodec": {"bandwidth": 3.0},
}


def build(name: str) -> tuple[SpeechCodec, SpeechCodes]:
    """An untrained codec and 60 frames of random codes."""
    if name == "encodec" and find_spec("encodec") is None:
        pytest.skip("the package encodec is not installed")
    torch.manual_seed(0)
    codec = build_codec(name.split()[0], CODECS[name]).eval()
    spec = codec.spec
    codes = torch.randint(spec.codebook_size, (1, spec.n_q, 60))
    ti = torch.randint(spec.time_invariant_size, (1, spec.n_time_invariant)) if spec.n_time_invariant else None
    return codec, SpeechCodes(codes, torch.tensor([60]), ti)


def streamed(codec: SpeechCodec, codes: SpeechCodes, pieces: list[int]) -> Tensor:
    stream = codec.decode_stream(None if codes.time_invariant is None else codes.time_invariant[0])
    return torch.cat([*(stream.push(piece) for piece in codes.codes[0].split(pieces, 1)), stream.finish()])


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", CODECS)
def test_a_stream_equals_decoding_all_at_once(name: str) -> None:
    codec, codes = build(name)
    expected = codec.decode(codes)[0, 0]
    actual = streamed(codec, codes, [3, 0, 17, 1, 29, 10])
    assert expected.std() > 1e-4, "the test would not see a difference"
    torch.testing.assert_close(actual, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("frames", [0, 6, 7])
def test_short_utterances(frames: int) -> None:
    for name in ("ticodec", "encodec"):
        codec, codes = build(name)
        part = SpeechCodes(codes.codes[..., :frames], torch.tensor([frames]), codes.time_invariant)
        actual = streamed(codec, part, [1] * frames)
        assert actual.shape == (frames * codec.spec.hop_length,)
        if frames:
            torch.testing.assert_close(actual, codec.decode(part)[0, 0], atol=1e-5, rtol=1e-4)


def test_the_shipped_codec_streams_within_40_db() -> None:
    codec = load_codec(ASSETS / "model")
    wav = load_audio(ASSETS / "eval/3331-159605-0007.opus", codec.spec.sample_rate)[:48000]
    codes = codec.encode(wav[None, None])
    expected = codec.decode(codes)[0, 0]
    frames = codes.codes.shape[-1]
    error = streamed(codec, codes, [7] * (frames // 7) + [frames % 7]) - expected
    # In every tenth of a second, not only on average: an audible seam is short.
    worst = error.unfold(0, 1600, 1600).square().mean(-1).max()
    assert 10 * torch.log10(worst / expected.square().mean()) < -40


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("name", "late"), [("ticodec", 14), ("encodec", 0)])
def test_how_late_the_audio_is(name: str, late: int) -> None:
    codec, codes = build(name)
    ti = None if codes.time_invariant is None else codes.time_invariant[0]
    stream = codec.decode_stream(ti)
    given = [stream.push(frame).shape[0] // codec.spec.hop_length for frame in codes.codes[0].split(1, 1)]
    assert sum(given) == 60 - late
    assert set(given[14:]) == {1}, "once it speaks, every frame gives a frame"


def test_misuse_is_refused() -> None:
    codec, codes = build("ticodec")
    stream = codec.decode_stream(codes.time_invariant[0])  # type: ignore[index]
    with pytest.raises(ValueError, match=r"codes must be \[n_q, T\], got \(1, 2, 60\)"):
        stream.push(codes.codes)
    stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.push(codes.codes[0])
    with pytest.raises(ValueError, match="finished"):
        stream.finish()
    with pytest.raises(ValueError, match="needs 8 time-invariant codes, got 0"):
        codec.decode_stream().push(codes.codes[0])
