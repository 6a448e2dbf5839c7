"""The best of several takes, as the model itself hears them: `OwnEar` needs nothing beside the bundle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.bundle import Bundle
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.voice import Voice

CLARITY = 0.5
"""What one unit of the aligner's score counts in units of the cosine of two voices."""


class OwnEar:
    """A `valle.pieces.Scorer`: do the aligner's phone models find the text in a take, and does TIRE find the voice?

    The first is a "goodness of pronunciation" (Witt and Young, 2000): by how much the frames fit the phones of the text
    worse than any phones. The second is the cosine of the time-invariant representations of take and prompt.
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
