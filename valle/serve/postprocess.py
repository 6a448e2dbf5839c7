"""What happens to speech between the model and the encoder: tempo, rate, gain, watermark, a limit of its peaks.

It fades in and out already, sentence by sentence (`valle.synthesis.utterance`).

Shapes: S samples, float32, mono.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soxr
import torch

from valle.serve.encoding import WIRE_RATE
from valle.serve.watermark import WatermarkStream
from valle.synthesis.loudness import Limiter

MIN_SPEED, MAX_SPEED = 0.25, 4.0
MAX_GAIN_DB = 20.0


@dataclass(frozen=True)
class Finishing:
    """What a request asks for, and whether the server marks what it makes."""

    speed: float = 1.0
    """Tempo; the pitch stays."""
    gain_db: float = 0.0
    watermark_key: str | None = None
    """None: no mark."""


class Finisher:
    """Takes the model's samples piece by piece, gives finished ones at `WIRE_RATE`."""

    def __init__(self, sample_rate: int, finishing: Finishing) -> None:
        self._tempo = None if finishing.speed == 1 else _Tempo(sample_rate, finishing.speed)
        self._resampler = soxr.ResampleStream(sample_rate, WIRE_RATE, 1, dtype="float32")
        self._watermark = WatermarkStream(WIRE_RATE, finishing.watermark_key) if finishing.watermark_key else None
        self._gain = np.float32(10 ** (finishing.gain_db / 20))
        self._limiter = Limiter(WIRE_RATE)

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Finished samples [S'], some of them held back for what follows."""
        return self._go_on(self._tempo.add(samples) if self._tempo else samples, last=False)

    def end(self) -> np.ndarray:
        """The remaining samples."""
        rest = self._tempo.end() if self._tempo else np.zeros(0, np.float32)
        return self._go_on(rest, last=True)

    def _go_on(self, samples: np.ndarray, last: bool) -> np.ndarray:
        samples = self._resampler.resample_chunk(samples, last=last) * self._gain
        if self._watermark is not None:
            samples = self._watermark.add(samples)
            if last:
                samples = np.concatenate((samples, self._watermark.end()))
        limited = self._limiter.add(torch.from_numpy(samples))
        return torch.cat((limited, self._limiter.end())).numpy() if last else limited.numpy()


class _Tempo:
    """FFmpeg's `atempo`, which works from 0.5 upwards: slower speech passes it twice."""

    def __init__(self, sample_rate: int, speed: float) -> None:
        self._rate, self._position = sample_rate, 0
        graph = av.filter.Graph()
        time_base = Fraction(1, sample_rate)
        self._source = graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono", time_base=time_base)
        steps = [speed] if speed >= 0.5 else [speed**0.5] * 2
        filters = [graph.add("atempo", f"{step:.6f}") for step in steps]
        self._sink = graph.add("abuffersink")
        for one, next_one in zip([self._source, *filters], [*filters, self._sink], strict=True):
            one.link_to(next_one)
        graph.configure()
        self._graph = graph  # the contexts do not keep it alive

    def add(self, samples: np.ndarray) -> np.ndarray:
        if len(samples):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._position, Fraction(1, self._rate)
            self._source.push(frame)
            self._position += len(samples)
        return self._pull()

    def end(self) -> np.ndarray:
        self._source.push(None)
        return self._pull()

    def _pull(self) -> np.ndarray:
        pieces = [np.zeros(0, np.float32)]
        while True:
            try:
                frame = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return np.concatenate(pieces)
            assert isinstance(frame, av.AudioFrame)
            pieces.append(frame.to_ndarray()[0])
