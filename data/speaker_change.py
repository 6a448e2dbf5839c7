"""Another speaker from the same recording: pitch, formants and tempo changed with the WORLD vocoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valle.common.errors import UserError

_FRAME_MS = 5.0


@dataclass(frozen=True)
class SpeakerChange:
    """Factors: 1 changes nothing; a higher `formants` is a shorter vocal tract, a higher `tempo` faster speech."""

    pitch: float = 1.0
    formants: float = 1.0
    tempo: float = 1.0

    def __post_init__(self) -> None:
        if not all(0.25 <= factor <= 4.0 for factor in (self.pitch, self.formants, self.tempo)):
            raise UserError(f"speaker change: factors must be in 0.25..4, got {self}")

    @classmethod
    def draw(cls, rng: np.random.Generator) -> SpeakerChange:
        """A random speaker: up to 6 semitones, 12 % of vocal tract, 15 % of tempo, either way."""
        semitones, tract, tempo = rng.uniform(-1, 1, 3)
        return cls(2 ** (semitones / 2), 1.12**tract, 1.15**tempo)


def change_speaker(wav: np.ndarray, rate: int, change: SpeakerChange) -> np.ndarray:
    """`wav` [S], float64, as another speaker would say it; [S / tempo]."""
    import pyworld

    f0, times = pyworld.dio(wav, rate, frame_period=_FRAME_MS)
    f0 = pyworld.stonemask(wav, f0, times, rate)
    spectrum = pyworld.cheaptrick(wav, f0, times, rate)
    noise = pyworld.d4c(wav, f0, times, rate)
    if change.formants != 1.0:
        bins = np.arange(spectrum.shape[1])
        source = bins / change.formants
        log_spectrum = np.log(spectrum)
        spectrum = np.exp(np.stack([np.interp(source, bins, frame) for frame in log_spectrum]))
    changed = pyworld.synthesize(f0 * change.pitch, spectrum, noise, rate, _FRAME_MS / change.tempo)
    peak = np.abs(changed).max(initial=0.0)
    return changed * (0.9 / peak) if peak > 0.9 else changed
