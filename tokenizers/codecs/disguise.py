"""Speech in a voice that is not the speaker's, as an encoder of spectra hears it.

A codec that must give an utterance in its true voice, but hears it disguised, can take from the frames only what is
said, and has to take the voice from the time-invariant codes (the idea is that of NANSY, arXiv 2110.14513).
Shapes: B utterances, T frames, F frequency bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Disguise:
    """How each of B utterances is changed.

    factor: [B], what every frequency is multiplied with; 1 leaves them
    tone:   [B, K], amplitudes of the cosines over the frequency axis that are added to the log-magnitudes
    """

    factor: Tensor
    tone: Tensor

    @classmethod
    def draw(cls, who: Tensor, warp: float, tone: float, generator: torch.Generator) -> Disguise:
        """A random one for the utterances where `who`, bool [B], is True.

        Factors are between 1 / `warp` and `warp`; the tone curve has a standard deviation of `tone` in units of the
        log-magnitudes (of about unit variance), more of it in broad slopes than in ripples.
        """
        batch = len(who)
        factor = warp ** (2 * torch.rand(batch, generator=generator) - 1)
        ripples = torch.arange(1, 7)
        curve = torch.randn(batch, len(ripples), generator=generator) / ripples
        curve = curve * tone / (0.5 / ripples.square()).sum().sqrt()
        return cls(torch.where(who, factor, 1.0), curve * who[:, None])

    def to(self, device: torch.device) -> Disguise:
        return Disguise(self.factor.to(device), self.tone.to(device))

    def __call__(self, spectra: Tensor) -> Tensor:
        """Log-magnitudes [B, T, F] disguised."""
        bins = spectra.shape[-1]
        ripples = torch.arange(1, self.tone.shape[1] + 1, device=spectra.device)
        position = torch.linspace(0, torch.pi, bins, device=spectra.device)
        curve = self.tone @ torch.cos(ripples[:, None] * position)
        return warp_frequencies(spectra, self.factor) + curve[:, None]


def warp_frequencies(spectra: Tensor, factor: Tensor) -> Tensor:
    """Log-magnitudes [B, T, F] with every frequency multiplied by `factor` [B].

    Pitch and formants move together, time does not (vocal tract length perturbation; Jaitly and Hinton, 2013). Above
    the highest bin there is nothing to take: it is repeated.
    """
    bins = spectra.shape[-1]
    source = (torch.arange(bins, device=spectra.device) / factor[:, None]).clamp(max=bins - 1)
    low = source.floor().long()
    share = (source - low)[:, None]
    low = low[:, None].expand_as(spectra)
    return torch.lerp(spectra.gather(-1, low), spectra.gather(-1, (low + 1).clamp(max=bins - 1)), share)
