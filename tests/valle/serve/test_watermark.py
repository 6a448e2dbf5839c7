"""The mark is found where it was put, and nowhere else; also after what happens to audio on its way."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from valle.cli import main
from valle.common.audio import load_audio, resample
from valle.serve.watermark import WatermarkStream, detect, embed

RATE = 24_000


@pytest.fixture(scope="module")
def clips(recordings) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """4 s of each of 5 speakers."""
    names = ["1688-142285-0006", "1998-15444-0002", "2414-128291-0001", "3005-163389-0000", "3331-159605-0009"]
    return [load_audio(recordings / f"{name}.opus", RATE)[: 4 * RATE].numpy() for name in names]


def through(samples: np.ndarray, container: str, codec: str, sample_format: str, bit_rate: int) -> np.ndarray:
    """Encoded and decoded again."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE)
        assert isinstance(stream, AudioStream)
        stream.codec_context.layout, stream.codec_context.format = "mono", sample_format
        stream.codec_context.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format=sample_format, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    file.seek(0)
    heard, rate = soundfile.read(file, dtype="float32")
    return resample(heard, rate, RATE)


WAYS = {
    "as it is": lambda x: x,
    "MP3, 48 kbit/s": lambda x: through(x, "mp3", "libmp3lame", "fltp", 48_000),
    "Opus, 32 kbit/s": lambda x: through(x, "ogg", "libopus", "flt", 32_000),
    "Opus, 16 kbit/s": lambda x: through(x, "ogg", "libopus", "flt", 16_000),
    "cut out and softer": lambda x: 0.3 * x[12_345:],
    "16 kHz and back": lambda x: resample(resample(x, RATE, 16_000), 16_000, RATE),
}


@pytest.mark.parametrize("way", WAYS)
def test_found_after(way: str, clips: list[np.ndarray]) -> None:
    for clip in clips:
        assert detect(WAYS[way](embed(clip, RATE)), RATE).is_marked


def test_not_found_where_it_is_not(clips: list[np.ndarray]) -> None:
    quiet = [np.zeros(3 * RATE, np.float32), np.random.default_rng(0).normal(0, 0.1, 5 * RATE).astype(np.float32)]
    for clip in [*clips, *(embed(clip, RATE, "another key") for clip in clips), *quiet]:
        assert not detect(clip, RATE).is_marked


def test_hardly_changes_the_sound(clips: list[np.ndarray]) -> None:
    for clip in clips:
        difference = embed(clip, RATE) - clip
        assert 10 * np.log10(np.mean(clip**2) / np.mean(difference**2)) > 12


@pytest.mark.parametrize("size", [100, 480, 5_000])
def test_pieces_are_marked_like_the_whole(size: int, clips: list[np.ndarray]) -> None:
    clip, stream = clips[0][:30_001], WatermarkStream(RATE)
    pieces = [stream.add(clip[start : start + size]) for start in range(0, len(clip), size)]
    np.testing.assert_allclose(np.concatenate([*pieces, stream.end()]), embed(clip, RATE), atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 100, 384, 385, 768, 769, 2_000])
def test_keeps_the_length(length: int, clips: list[np.ndarray]) -> None:
    assert len(embed(clips[0][:length], RATE)) == length


def test_command(clips: list[np.ndarray], tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    plain, marked = tmp_path / "plain.wav", tmp_path / "marked.mp3"
    soundfile.write(plain, clips[1], RATE)
    assert main(["watermark", "embed", str(plain), str(marked), "--key", "mine"]) == 0
    assert main(["watermark", "detect", str(marked), "--key", "mine"]) == 0
    assert main(["watermark", "detect", str(marked)]) == 1
    assert main(["watermark", "detect", str(plain), "--key", "mine"]) == 1
    soundfile.write(plain, clips[1][:1000], RATE)
    assert main(["watermark", "detect", str(plain)]) == 2
    assert "too short" in capsys.readouterr().err
