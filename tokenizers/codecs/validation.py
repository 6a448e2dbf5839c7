"""What a codec in training is measured by: `held_out_scores`. Shapes: B utterances, S samples, G and D of TIRE."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.losses import MultiMelLoss


def held_out_scores(codec: AutoencoderCodec, mel: MultiMelLoss, wav: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Mel distance of whole utterances at every n_q, and with the codes of *another* utterance's voice.

    The batch's first utterance lends its time-invariant codes to the second and so on: if they carry the voice
    and the frames do not, the distance rises; a codec that ignores them would not notice.

    wav: [B, 1, S], lengths: [B]
    """
    codes = codec.encode(wav, lengths)
    whole = wav[..., : int(lengths.max())]

    def distance(n_q: int, time_invariant: Tensor | None) -> Tensor:
        decoded = codec.decode(replace(codes.first(n_q), time_invariant=time_invariant))
        size = min(decoded.shape[-1], whole.shape[-1])
        return mel(decoded[..., :size], whole[..., :size])

    n_q = codec.spec.n_q
    scores = {f"mel_distance_{n}": distance(n, codes.time_invariant) for n in sorted({1, min(2, n_q), n_q})}
    if codes.time_invariant is not None:
        scores["mel_distance_prompt"] = distance(n_q, _of_second_halves(codec, wav, lengths))
        scores["mel_distance_foreign"] = distance(n_q, codes.time_invariant.roll(1, 0))
        scores["consistency"] = F.cosine_similarity(*_halves(codec, wav, lengths)).mean()
    return scores


def _of_second_halves(codec: AutoencoderCodec, wav: Tensor, lengths: Tensor) -> Tensor:
    """Time-invariant codes of each utterance's second half alone: [B, G]."""
    found = []
    for one, length in zip(wav, lengths.tolist(), strict=True):
        codes = codec.encode(one[None, :, length // 2 : length]).time_invariant
        assert codes is not None
        found.append(codes)
    return torch.cat(found)


def _halves(codec: AutoencoderCodec, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """TIRE of each utterance's first and second half: [B, D] both (TiCodec, figure 2)."""
    pairs = [one[None, :, :length].chunk(2, -1) for one, length in zip(wav, lengths.tolist(), strict=True)]
    firsts, seconds = ([codec.representation(half) for half in side] for side in zip(*pairs, strict=True))
    return torch.cat(firsts), torch.cat(seconds)
