"""Which of several candidates is best: `find_fault` by its codes alone, `OwnEar` by what the model itself hears.

Shapes: T frames, L text tokens, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.request import Generated, Request
from valle.lm.sampling import Sampling
from valle.synthesis.model import Bundle
from valle.synthesis.prompt import Voice
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec

LOOP_SECONDS = 0.8
"""Codes that repeat themselves for so long within speech are a loop: no speech sound lasts so long."""
LOOP_PERIODS = 8
"""Loops of up to so many frames are looked for."""
RUSHED_SECONDS = 0.03
"""A mean of less than this for a phone is too fast to understand; fast speakers take twice as long."""


def find_fault(said: Generated, request: Request, boundary: Tensor, sampling: Sampling, frame_rate: float) -> str:
    """What is wrong with `said`: "max_length", "stuck", "repeats", "rushed", or "" for nothing.

    boundary: bool, True for the text ids that may be silent
    """
    if said.stop_reason == "max_length":
        return "max_length"
    silent_token = boundary[request.phonemes[request.prompt_phonemes :]]
    speaking = torch.ones_like(said.codes, dtype=torch.bool)
    if said.durations is not None:
        limit = torch.where(silent_token, sampling.max_boundary_frames, sampling.max_phone_frames)
        if bool((said.durations >= limit).any()):
            return "stuck"
        speaking = ~silent_token.repeat_interleave(said.durations)
    if longest_loop(said.codes, speaking) >= LOOP_SECONDS * frame_rate:
        return "repeats"
    if len(said.codes) < RUSHED_SECONDS * frame_rate * int((~silent_token).sum()):
        return "rushed"
    return ""


def longest_loop(codes: Tensor, speaking: Tensor) -> int:
    """Most frames in a row of `codes` [T] that each equal the one a period before, for any short period.

    Only frames where `speaking` [T] count: a pause may well be the same code over and over.
    """
    longest = 0
    for period in range(1, min(LOOP_PERIODS, len(codes) - 1) + 1):
        same = (codes[period:] == codes[:-period]) & speaking[period:]
        breaks = F.pad((~same).nonzero()[:, 0], (1, 0), value=-1)
        gaps = F.pad(breaks, (0, 1), value=len(same)).diff() - 1
        longest = max(longest, int(gaps.max()))
    return longest


CLARITY = 0.5
"""What one unit of the aligner's score counts in units of the cosine of two voices."""


class OwnEar:
    """Do the aligner's phone models find the text in a candidate, and does TIRE find the voice?

    The first is a "goodness of pronunciation" (Witt and Young, 2000): by how much the frames fit the phones of the text
    worse than any phones. The second is the cosine of the time-invariant representations of candidate and prompt.
    """

    def __init__(self, bundle: Bundle, language: str = "en-us") -> None:
        self.bundle, self.language = bundle, language

    def __call__(self, text: str, voice: Voice, wavs: Sequence[Tensor], sample_rate: int) -> list[float]:
        """One score for each of `wavs` [S], at the codec's sample rate; higher is better."""
        scores = zip(self._clarity(text, wavs), self._likeness(voice, wavs), strict=True)
        return [CLARITY * clarity + likeness for clarity, likeness in scores]

    def _clarity(self, text: str, wavs: Sequence[Tensor]) -> list[float]:
        if self.bundle.aligner is None:
            return [0.0] * len(wavs)
        phonemes = self.bundle.encode(text, self.language).tolist()
        found = self.bundle.aligner.alignments([phonemes] * len(wavs), wavs)
        return [-torch.inf if alignment is None else alignment.score for alignment in found]

    @torch.inference_mode()
    def _likeness(self, voice: Voice, wavs: Sequence[Tensor]) -> list[float]:
        codec = self.bundle.codec
        if not isinstance(codec, AutoencoderCodec) or codec.time_invariant is None:
            return [0.0] * len(wavs)
        device = next(codec.parameters()).device
        wanted, *heard = (codec.representation(wav[None, None].to(device)) for wav in (voice.prompt.wav, *wavs))
        return [float(F.cosine_similarity(wanted, one)) for one in heard]
