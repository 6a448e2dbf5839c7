"""How loud speech is, that all of it is as loud, and that nothing of it clips: `loudness`, `Leveller`, `Limiter`.

Shapes: S samples, float32, mono.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    import pyloudnorm

PEAK_DBFS = -1.0
"""No true peak is above it: what lossy codings and players make of a wave may overshoot by as much (EBU R 128)."""
MIN_SECONDS = 0.4
"""Of one block of BS.1770."""
MAX_GAIN_DB = 20.0
"""Up or down: more would raise a room's noise, where a piece is hardly more than that."""
LOOK_SECONDS = 0.01
"""Before a peak and behind it the gain moves over so much: slower than a voice's pitch, which it shall not colour."""
_BETWEEN = 8
"""Places looked at for each sample; with the four of BS.1770 some peaks are .2 dB higher than found."""
_TAPS = 12
"""Samples on each side that decide what lies between two."""


def loudness(wav: Tensor, sample_rate: int) -> float:
    """Integrated loudness of `wav` [S] in LUFS (ITU-R BS.1770); minus infinity for silence and less than 0.4 s."""
    if len(wav) < MIN_SECONDS * sample_rate:
        return -math.inf
    with np.errstate(divide="ignore", invalid="ignore"):  # of what is silent
        found = float(_meter(sample_rate).integrated_loudness(wav.double().numpy()))
    return found if math.isfinite(found) else -math.inf


@cache
def _meter(sample_rate: int) -> pyloudnorm.Meter:
    import pyloudnorm  # not at the top: scipy, which it brings, takes half as long to load as torch

    warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning, "pyloudnorm")  # of what is silent, too
    return pyloudnorm.Meter(sample_rate)


class Leveller:
    """Brings one piece of speech after another to `target` LUFS, in parts of any size; None: to none.

    A piece that comes in one part gets one gain. One that is heard before it is complete begins with the gain that is
    expected (or was right for the piece before), and goes over, within each part, to what all of it so far needs.
    """

    def __init__(self, sample_rate: int, target: float | None, expected: float) -> None:
        """`expected`: LUFS of the first piece, as long as nothing is known of it."""
        self.sample_rate, self.target = sample_rate, target
        self._gain_db = 0.0 if target is None else _bounded(target - expected)
        self._piece = torch.zeros(0)

    def add(self, wav: Tensor) -> Tensor:
        """The next part [S] of the piece, levelled."""
        if self.target is None or not len(wav):
            return wav
        begins, before = not len(self._piece), self._gain_db
        self._piece = torch.cat((self._piece, wav))
        found = loudness(self._piece, self.sample_rate)
        if math.isfinite(found):
            self._gain_db = _bounded(self.target - found)
        gains = torch.linspace(self._gain_db if begins else before, self._gain_db, len(wav))
        return wav * 10 ** (gains / 20)

    def end(self) -> None:
        """The next part is one of another piece."""
        self._piece = torch.zeros(0)


class Limiter:
    """Takes samples piece by piece and gives them `gain` times as loud, with true peaks of at most `PEAK_DBFS`.

    Where none is above that, samples are multiplied by `gain` and nothing else. Some 20 ms are held back.
    """

    def __init__(self, sample_rate: int, gain: float = 1.0) -> None:
        self.gain, self.ceiling = gain, 10 ** (PEAK_DBFS / 20)
        self._look = int(LOOK_SECONDS * sample_rate)
        self._reach = 2 * self._look + _TAPS
        """Samples on each side that decide over one."""
        self._known = torch.zeros(self._reach)
        self._kernels = _interpolators()

    def add(self, wav: Tensor) -> Tensor:
        """The samples [S'] that are certain once `wav` [S] has come."""
        self._known = torch.cat((self._known, wav * self.gain))
        count = len(self._known) - 2 * self._reach
        if count <= 0:
            return torch.zeros(0)
        known, self._known = self._known, self._known[count:]
        return known[self._reach : self._reach + count] * self._factors(known)

    def end(self) -> Tensor:
        """The rest."""
        return self.add(torch.zeros(self._reach))

    def _factors(self, known: Tensor) -> Tensor | float:
        """What the samples are multiplied by, but for those at the edges, which nothing is known of yet."""
        between = F.conv1d(known[None, None], self._kernels)[0].abs().amax(dim=0)
        peaks = torch.maximum(between, known[_TAPS - 1 : len(known) - _TAPS].abs())
        # A peak may lie before the sample or behind it.
        peaks = torch.maximum(peaks[1:], peaks[:-1])
        if bool((peaks <= self.ceiling).all()):
            return 1.0
        too_much = 1 - self.ceiling / peaks.clamp(min=self.ceiling)
        # The most of all neighbours, and of that the mean: smooth, and nowhere less than what is too much there.
        width = 2 * self._look + 1
        most = F.max_pool1d(too_much[None], width, stride=1)
        return 1 - F.avg_pool1d(most, width, stride=1)[0]


def _bounded(gain_db: float) -> float:
    return max(-MAX_GAIN_DB, min(MAX_GAIN_DB, gain_db))


def _interpolators() -> Tensor:
    """Windowed sinc functions [7, 1, 24] for the places between two samples."""
    places = torch.arange(1, _BETWEEN) / _BETWEEN
    distance = torch.arange(-_TAPS + 1, _TAPS + 1)[None] - places[:, None]
    window = torch.cos(math.pi * distance / (2 * _TAPS)).clamp(min=0).square()
    return (torch.sinc(distance) * window)[:, None].float()
