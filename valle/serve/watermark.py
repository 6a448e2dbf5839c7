"""An inaudible mark that tells synthetic speech from recordings, and that survives MP3 and Opus.

A key draws a pattern of +1 and -1 over bands of 125 Hz and cells of 64 ms, and each cell of the speech is made louder
or softer by 1.8 dB accordingly. One cell says nothing, as speech varies far more; over seconds the pattern emerges.
Whoever knows the key can find the mark; whoever wants it gone can remove it.

Shapes: S samples, T cells of time, B bands.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from valle.common.audio import resample

DEFAULT_KEY = "valle"
"""Known to everybody, so that everybody can look for the mark."""

GAIN_DB = 1.8
FRAME_SECONDS = 0.032
CELL_FRAMES = 4
"""Half-overlapping frames in a cell: 64 ms."""
CELL_SECONDS = CELL_FRAMES * FRAME_SECONDS / 2
PERIOD = 32
"""Cells after which the pattern repeats: 2 s."""
BANDS = 40
BAND_HZ = 125.0
LOWEST_HZ = 500.0
"""Below, pitch harmonics are far apart and the ear is keen; above 5.5 kHz, codecs save bits."""

THRESHOLD = 5.0
"""Standard deviations. See docs/serving.md for what marked and unmarked speech reach."""
MIN_SECONDS = 1.0

_RATE = 16_000
_STEPS = 8
"""Places tried within a cell: where a recording was cut is unknown."""
_DECOYS = 64
"""Patterns of other keys: what they reach on a recording tells what chance reaches on it."""
_RANGE_DB = 70.0


def pattern(key: str) -> np.ndarray:
    """float32 [PERIOD, BANDS] of +1 and -1; each band has as many of either."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    signs = np.tile(np.repeat(np.array([1, -1], np.float32), PERIOD // 2)[:, None], (1, BANDS))
    return np.random.default_rng(seed).permuted(signs, axis=0)


class WatermarkStream:
    """Marks speech piece by piece: gives as many samples as it takes, a frame (32 ms) later."""

    def __init__(self, sample_rate: int, key: str = DEFAULT_KEY) -> None:
        self._size = 2 * round(FRAME_SECONDS * sample_rate / 2)
        self._hop = self._size // 2
        # Its square adds up to one at half overlap (Princen and Bradley).
        self._window = np.sin(np.pi * (np.arange(self._size) + 0.5) / self._size).astype(np.float32)
        self._gains = _bin_gains(pattern(key), self._size, sample_rate)
        self._frame = 0
        self._input = np.zeros(self._hop, np.float32)
        self._tail = np.zeros(self._hop, np.float32)
        self._lead = self._hop
        """Samples in front of the speech, from the first half frame, that are yet to be thrown away."""
        self._taken = self._given = 0

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Marked samples, float32 [S']."""
        self._taken += len(samples)
        self._input = np.concatenate((self._input, samples.astype(np.float32)))
        done = [np.zeros(0, np.float32)]
        while len(self._input) >= self._size:
            gain = self._gains[self._frame // CELL_FRAMES % PERIOD]
            spectrum = np.fft.rfft(self._input[: self._size] * self._window) * gain
            frame = np.fft.irfft(spectrum, self._size).astype(np.float32) * self._window
            done.append(self._tail + frame[: self._hop])
            self._tail = frame[self._hop :]
            self._input = self._input[self._hop :]
            self._frame += 1
        marked = np.concatenate(done)
        skipped = min(self._lead, len(marked))
        self._lead -= skipped
        self._given += len(marked) - skipped
        return marked[skipped:]

    def end(self) -> np.ndarray:
        """The samples held back."""
        held = self._taken - self._given
        return self.add(np.zeros(2 * self._size, np.float32))[:held]


def embed(samples: np.ndarray, sample_rate: int, key: str = DEFAULT_KEY) -> np.ndarray:
    """Marked copy of float32 samples [S]."""
    stream = WatermarkStream(sample_rate, key)
    return np.concatenate((stream.add(samples), stream.end()))


@dataclass(frozen=True)
class Detection:
    """What was found in a recording."""

    score: float
    """Standard deviations above what chance gives, at the best of all alignments."""

    @property
    def is_marked(self) -> bool:
        return self.score >= THRESHOLD


def detect(samples: np.ndarray, sample_rate: int, key: str = DEFAULT_KEY) -> Detection:
    """Look for the mark in float32 samples [S], wherever they were cut out."""
    audio = resample(samples.astype(np.float32), sample_rate, _RATE)
    cells = _cells(audio)
    keys = [key, *(f"{key} decoy {i}" for i in range(_DECOYS))]
    patterns = np.stack([pattern(k) for k in keys])
    scores = np.stack([_correlate(_folded(whitened), patterns) for whitened in map(_whiten, cells)])
    # [steps, keys, offsets]
    chance = scores[:, 1:]
    spread = float(chance.std())
    return Detection(float(scores[:, 0].max()) / spread if spread > 0 else 0.0)


def _bin_gains(signs: np.ndarray, size: int, sample_rate: int) -> np.ndarray:
    """Factors [PERIOD, bins] of a spectrum of `size` samples."""
    band = np.floor((np.fft.rfftfreq(size, 1 / sample_rate) - LOWEST_HZ) / BAND_HZ).astype(int)
    inside = (band >= 0) & (band < BANDS)
    decibel = np.where(inside, signs[:, band.clip(0, BANDS - 1)] * GAIN_DB, 0.0)
    return (10 ** (decibel / 20)).astype(np.float32)


def _cells(audio: np.ndarray) -> list[np.ndarray]:
    """Loudness in dB, [T, B], of the cells that start at each of `_STEPS` places."""
    size, hop = round(FRAME_SECONDS * _RATE), round(CELL_SECONDS * _RATE) // _STEPS
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, (size, size)), size)[::hop] * window
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.round((LOWEST_HZ + BAND_HZ * np.arange(BANDS + 1)) * size / _RATE).astype(int)
    bands = np.add.reduceat(power, edges, axis=1)[:, :BANDS]
    decibel = 10 * np.log10(bands + 1e-12)
    decibel = decibel.clip(decibel.max() - _RANGE_DB)
    inner = _STEPS - 2
    return [
        np.stack([decibel[i : i + inner].mean(0) for i in range(start, len(decibel) - inner + 1, _STEPS)])
        for start in range(_STEPS)
        if start + inner <= len(decibel)
    ]


def _whiten(cells: np.ndarray) -> np.ndarray:
    """What each cell has more than its surroundings: speech is smooth over time and over frequency, the mark is not."""
    for axis in (0, 1):
        cells = cells - _smooth(cells, axis)
    return np.tanh(cells / 6)


def _smooth(cells: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the two neighbours on either side, without the cell itself."""
    padded = np.pad(cells, [(2, 2) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    length = cells.shape[axis]
    return np.add.reduce([np.take(padded, np.arange(i, i + length), axis) for i in (0, 1, 3, 4)]) / 4


def _folded(whitened: np.ndarray) -> np.ndarray:
    """Sum over periods: [PERIOD, B]."""
    total = np.zeros((PERIOD, BANDS))
    np.add.at(total, np.arange(len(whitened)) % PERIOD, whitened)
    return total


def _correlate(folded: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Inner product with each pattern [K, PERIOD, B] at each offset: [K, PERIOD]."""
    spectra = np.fft.rfft(folded, axis=0)[None] * np.fft.rfft(patterns, axis=1).conj()
    return np.fft.irfft(spectra.sum(-1), PERIOD, axis=1)
