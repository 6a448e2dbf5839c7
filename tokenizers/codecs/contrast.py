"""Against over-smoothing: the spread that a decoder's spectra lack is given back to them.

What cannot be told from few codes comes out of a decoder as a mean, and means vary less than speech does. As the
"global variance" of statistical synthesis (Toda and Tokuda, 2007), the log-magnitudes of each frequency bin are spread
about their usual level, by the factor that they were found to be too even by. Shapes: T frames, F frequency bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from valle.common.errors import UserError
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.stft import log_size


class Contrast(nn.Module):
    """Changes nothing until `calibrate` has measured a codec.

    level: [n_q, F], the mean log-magnitude of each bin when so many quantizers are used; factor: [n_q]
    """

    def __init__(self, n_q: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("level", torch.zeros(n_q, n_fft // 2 + 1))
        self.register_buffer("factor", torch.ones(n_q))
        self.level: Tensor
        self.factor: Tensor

    def forward(self, size: Tensor, n_q: int) -> Tensor:
        """Log-magnitudes [B, T, F] made of `n_q` quantizers, with the spread of speech."""
        level = self.level[n_q - 1]
        return level + (size - level) * self.factor[n_q - 1]

    def sizes(self, wav: Tensor) -> Tensor:
        """Log-magnitudes [T, F] of `wav` [S], in the decoder's frames."""
        return log_size(wav[None], self.n_fft, self.hop_length)[0]


@torch.no_grad()
def calibrate(codec: AutoencoderCodec, wavs: Sequence[Tensor]) -> list[float]:
    """Measure the contrast of `codec`'s decoder on recordings [S]; a hundred utterances of many speakers will do.

    Returns the factors for 1, 2, … quantizers.

    Raises `UserError` for a codec whose decoder makes no spectra.
    """
    contrast = getattr(codec.decoder, "contrast", None)
    if not isinstance(contrast, Contrast):
        raise UserError(f"codec '{codec.spec.name}' cannot be calibrated: its decoder makes no spectra")
    if not wavs:
        raise UserError("a codec is calibrated on recordings, but there are none")
    contrast.level.zero_()
    contrast.factor.fill_(1.0)
    device = contrast.level.device
    spreads = torch.zeros(1 + len(contrast.factor), device=device)
    for wav in wavs:
        wav = wav.to(device)
        codes = codec.encode(wav[None, None])
        spreads[0] += contrast.sizes(wav).std(0).mean()
        for n_q in range(1, len(contrast.factor) + 1):
            size = contrast.sizes(codec.decode(codes.first(n_q))[0, 0])
            contrast.level[n_q - 1] += size.mean(0) / len(wavs)
            spreads[n_q] += size.std(0).mean()
    contrast.factor.copy_(spreads[0] / spreads[1:])
    return contrast.factor.tolist()
