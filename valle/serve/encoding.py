"""Audio for the wire: mono samples at 24 kHz become MP3, Ogg Opus, AAC, FLAC, WAV or raw PCM, or single Opus packets.

Shapes: S samples.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from fractions import Fraction

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

WIRE_RATE = 24_000
"""Hz: what OpenAI's API gives, and what Opus and all other formats can carry."""

OPUS_BIT_RATE = 32_000
OPUS_PACKET_SECONDS = 0.02

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

NEEDS_LENGTH = {"wav", "flac"}
"""Formats whose header states the length: many readers refuse them without it."""

# name -> (container, codec, sample format, bits per second, options of the container)
_COMPRESSED = {
    "mp3": ("mp3", "libmp3lame", "fltp", 96_000, {}),
    "opus": ("ogg", "libopus", "flt", OPUS_BIT_RATE, {"page_duration": "20000"}),
    "aac": ("adts", "aac", "fltp", 96_000, {}),
    "flac": ("flac", "flac", "s16", None, {}),
}


class AudioEncoder(ABC):
    """Takes samples piece by piece; what it gives, joined, is the file."""

    @abstractmethod
    def add(self, samples: np.ndarray) -> bytes:
        """Encode float32 samples [S] in [-1, 1]; may keep some of them for later."""

    @abstractmethod
    def end(self) -> bytes:
        """What is still to come."""


def audio_encoder(name: str) -> AudioEncoder:
    """An encoder for one stream in a format of `CONTENT_TYPES`."""
    if name == "pcm":
        return _Pcm()
    return _Wav() if name == "wav" else _Compressed(name)


def encode_whole(name: str, samples: np.ndarray) -> bytes:
    """A complete file of float32 samples [S], its length stated where the format has a place for it."""
    if name == "wav":
        return _wav_header(2 * len(samples)) + to_pcm16(samples)
    if name == "pcm":
        return to_pcm16(samples)
    file = io.BytesIO()
    encoder = _Compressed(name, file)
    encoder.add(samples)
    encoder.end()
    return file.getvalue()


def to_pcm16(samples: np.ndarray) -> bytes:
    """16-bit signed little-endian samples of float32 [S]."""
    return (samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes()


class OpusPackets:
    """Raw Opus packets of 20 ms, 32 kbit/s, mono; the last one is filled with silence."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, AudioCodecContext)
        codec.sample_rate, codec.layout, codec.format = WIRE_RATE, "mono", "flt"
        codec.bit_rate, codec.time_base = OPUS_BIT_RATE, Fraction(1, WIRE_RATE)
        codec.options = {"frame_duration": f"{1000 * OPUS_PACKET_SECONDS:g}"}
        self._codec, self._position = codec, 0

    def add(self, samples: np.ndarray) -> list[bytes]:
        """Packets that are full after these float32 samples [S]."""
        frame = _frame(samples, "flt", self._position)
        self._position += len(samples)
        return [bytes(packet) for packet in self._codec.encode(frame)]

    def end(self) -> list[bytes]:
        """The packets that remain."""
        return [bytes(packet) for packet in self._codec.encode(None)] if self._position else []


class _Pcm(AudioEncoder):
    def add(self, samples: np.ndarray) -> bytes:
        return to_pcm16(samples)

    def end(self) -> bytes:
        return b""


class _Wav(AudioEncoder):
    """A stream does not know its length: the header says "very long", as is the custom."""

    def __init__(self) -> None:
        self._header = _wav_header(0xFFFFFFFF - 36)

    def add(self, samples: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + to_pcm16(samples)

    def end(self) -> bytes:
        return self.add(np.zeros(0, np.float32))


class _Compressed(AudioEncoder):
    """Through FFmpeg."""

    def __init__(self, name: str, file: io.BytesIO | None = None) -> None:
        container, codec, self._format, bit_rate, options = _COMPRESSED[name]
        self._pipe = _Pipe()
        self._container = av.open(file or self._pipe, "w", format=container, options={**options, "flush_packets": "1"})
        stream = self._container.add_stream(codec, rate=WIRE_RATE)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        context = stream.codec_context
        context.layout, context.format = "mono", self._format
        if bit_rate is not None:
            context.bit_rate = bit_rate
        self._position = 0

    def add(self, samples: np.ndarray) -> bytes:
        if len(samples):
            for packet in self._stream.encode(_frame(samples, self._format, self._position)):
                self._container.mux(packet)
            self._position += len(samples)
        return self._pipe.take()

    def end(self) -> bytes:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._pipe.take()


class _Pipe:
    """A file that only FFmpeg's muxer writes to; it cannot seek, so the muxer does not go back to fill in lengths."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


def _frame(samples: np.ndarray, sample_format: str, position: int) -> av.AudioFrame:
    if sample_format == "s16":
        samples = np.frombuffer(to_pcm16(samples), "<i2")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format=sample_format, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = WIRE_RATE, position, Fraction(1, WIRE_RATE)
    return frame


def _wav_header(size: int) -> bytes:
    rate = (WIRE_RATE, 2 * WIRE_RATE, 2, 16)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, *rate, b"data", size)
