"""Whether the chunks of a stream can be heard: spectral flux where they meet, and elsewhere.

Shapes: S samples, F frames of the spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean

import torch
from torch import Tensor

from valle.eval.decoding.findings import Finding
from valle.eval.stats import estimate
from valle.eval.trials import Trial
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.loudness import LOOK_SECONDS
from valle.synthesis.utterance import FADE_SECONDS

_HOP_SECONDS, _WINDOW_SECONDS = 0.002, 0.016
_FLOOR_DB = -60.0
"""Below the loudest: what is softer counts as silence."""
SEAM_DB = 0.1
"""So much more flux may be at a border than at the same place without one; speech has some 2 dB everywhere."""
HELD_SECONDS = FADE_SECONDS + 2 * LOOK_SECONDS
"""The end of a chunk that comes with the next one: it may be that of a sentence, and what follows may have a peak."""
REACH_SECONDS = 0.02
"""A seam is looked for so far around a border."""


def check_seams(cloner: VoiceCloner, trials: Sequence[Trial], seed: int = 0) -> list[Finding]:
    """Stream `trials`, each of one sentence, and look at the borders of the chunks.

    Borders do not lie anywhere: the first ones come soon after the sentence begins, where speech itself changes fast.
    What a seam adds is therefore the difference to the same places of the same sentence made as a whole.
    """
    at: list[float] = []
    elsewhere: list[float] = []
    whole: list[float | None] = []
    voices = {path: cloner.make_voice(path) for path in {trial.prompt.path for trial in trials}}
    for trial in trials:
        voice = voices[trial.prompt.path]
        chunks = [chunk.wav for chunk in cloner.stream(trial.text, voice, seed=seed)]
        streamed, made = torch.cat(chunks), cloner.clone(trial.text, voice, seed=seed, candidates=1).wav
        spec = cloner.bundle.codec.spec
        borders = [border + round(HELD_SECONDS * spec.sample_rate) for border in accumulate(map(len, chunks[:-1]))]
        near, far = places(borders, len(streamed), spec.sample_rate, spec.hop_length)
        if near and far:
            at.append(fmean(peaks(streamed, near, spec.sample_rate)))
            elsewhere.append(fmean(peaks(streamed, far, spec.sample_rate)))
            # A sentence that was spoken again when nobody heard it yet is another one.
            same = made.shape == streamed.shape
            whole.append(fmean(peaks(made, near, spec.sample_rate)) if same else None)
    more = estimate([a - b for a, b in zip(at, elsewhere, strict=True)], seed=seed)
    seam = estimate([None if b is None else a - b for a, b in zip(at, whole, strict=True)], seed=seed)
    return [
        Finding("flux at the borders of chunks, dB", estimate(at, seed=seed)),
        Finding("borders minus elsewhere", more),
        Finding("borders minus the same places made as a whole", seam, f"at most {SEAM_DB}", seam.value <= SEAM_DB),
    ]


def places(borders: Sequence[int], size: int, sample_rate: int, hop: int) -> tuple[list[int], list[int]]:
    """Samples to look at: the `borders`, and all others a whole number of codec frames (`hop`) from them.

    Not those near the ends of the recording [size], where it is faded, nor others near a border.
    """
    reach = round(REACH_SECONDS * sample_rate)
    near = [place for place in borders if 2 * reach <= place <= size - 2 * reach]
    if not near:
        return [], []
    grid = range(near[0] % hop, size, hop)
    others = [place for place in grid if all(abs(place - border) > 2 * reach for border in borders)]
    return near, [place for place in others if 2 * reach <= place <= size - 2 * reach]


def peaks(wav: Tensor, where: Sequence[int], sample_rate: int) -> list[float]:
    """The highest spectral flux around each of the samples `where` of `wav` [S]."""
    flux, hop = spectral_flux(wav, sample_rate), round(_HOP_SECONDS * sample_rate)
    reach = round(REACH_SECONDS * sample_rate)
    return [float(flux[max(0, (place - reach) // hop) : (place + reach) // hop + 1].max()) for place in where]


def spectral_flux(wav: Tensor, sample_rate: int) -> Tensor:
    """Mean change of the spectrum's level from frame to frame, in dB: [F], 2 ms each."""
    size, hop = round(_WINDOW_SECONDS * sample_rate), round(_HOP_SECONDS * sample_rate)
    spectrum = torch.stft(wav, size, hop, window=torch.hann_window(size), return_complex=True).abs()
    level = 20 * (spectrum / spectrum.max().clamp(min=1e-9)).clamp(min=10 ** (_FLOOR_DB / 20)).log10()
    return level.diff(dim=1).abs().mean(dim=0)
