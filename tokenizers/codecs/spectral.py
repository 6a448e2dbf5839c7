"""The spectral TiCodec: STFT -> ConvNeXt -> RVQ -> ConvNeXt -> iSTFT, with time-invariant codes.

All layers run at the frame rate, not at the sample rate, so that it trains and decodes on a CPU. The trunk is that of
Vocos (arXiv 2306.00814), the factorised codebooks those of DAC (2306.06546), the time-invariant part TiCodec's
(2310.00014). Shapes: B utterances, S samples, T frames, C channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.tokenizers.codecs.attention import LocalAttention
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec, FrameEncoder
from valle.tokenizers.codecs.base import BLOCK, CodecSpec, Reach, arguments
from valle.tokenizers.codecs.contrast import Contrast
from valle.tokenizers.codecs.convnext import ConvNeXtBlock, FrameConv
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.quantizers import ResidualQuantizer
from valle.tokenizers.codecs.stft import log_magnitude, overlap_add
from valle.tokenizers.codecs.time_invariant import TimeInvariant

LOOK_AHEAD = 14
"""Frames that a stream waits for. The decoder sees more, but what the later ones add is 60 dB below."""


class SpectralEncoder(FrameEncoder):
    """Log-magnitude spectra to frames [B, T, C]: ConvNeXt blocks, and attention after the last of them, if any."""

    per_bin = 1
    """Numbers that are heard of each frequency."""

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        dim: int,
        hidden: int,
        layers: int,
        early: int,
        attention: LocalAttention | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.early = n_fft, hop_length, early
        self.embed = nn.Linear(self.per_bin * (n_fft // 2 + 1), dim)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, hidden, causal=causal) for _ in range(layers))
        self.attention = attention
        self.out = nn.LayerNorm(dim)

    def spectra(self, wav: Tensor, disguise: Disguise | None) -> Tensor:
        """What is heard of `wav` [B, S]: [B, T, per_bin * (n_fft // 2 + 1)]."""
        spectra = log_magnitude(wav, self.n_fft, self.hop_length)
        return spectra if disguise is None else disguise(spectra)

    def early_features(self, wav: Tensor, mask: Tensor | None = None, disguise: Disguise | None = None) -> Tensor:
        x = self.norm(self.embed(self.spectra(wav, disguise)))
        for block in self.blocks[: self.early]:
            x = block(x, mask)
        return x

    def forward(self, early: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks[self.early :]:
            early = block(early, mask)
        return self.out(early if self.attention is None else self.attention(early, mask))


class SpectralDecoder(nn.Module):
    """Frames [B, T, C] to a waveform [B, S].

    The second half of the blocks runs at `upsample` times the frame rate: a 20 ms frame is too long a step for the
    phase of high harmonics to stay coherent from one frame to the next.
    """

    def __init__(
        self,
        hop_length: int,
        dim: int,
        hidden: int,
        layers: tuple[int, int],
        upsample: int,
        time_invariant: bool,
        n_q: int,
        overlap: int = 4,
        causal: bool = False,
    ) -> None:
        """`n_q`: of the codec; `overlap`: windows that share a sample; `causal`: only they see later frames."""
        super().__init__()
        self.upsample, self.overlap, self.causal = upsample, overlap, causal
        self.hop_length = hop_length // upsample
        n_fft = overlap * self.hop_length
        self.embed = FrameConv(dim, dim, 7, causal=causal)
        self.norm = nn.LayerNorm(dim)
        self.coarse = nn.ModuleList(ConvNeXtBlock(dim, hidden, causal=causal) for _ in range(layers[0]))
        # Scale and shift of every block's input; as in FiLM (arXiv 1709.07871), which starts with no effect.
        self.voice = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(sum(layers) if time_invariant else 0))
        for layer in self.voice.parameters():
            nn.init.zeros_(layer)
        self.expand = nn.Linear(dim, upsample * dim) if upsample > 1 else nn.Identity()
        self.fine = nn.ModuleList(ConvNeXtBlock(dim, hidden, causal=causal) for _ in range(layers[1]))
        self.out_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, n_fft + 2)
        self.contrast = Contrast(n_q, n_fft, self.hop_length)

    def reach(self) -> Reach:
        """How far the decoder sees: three frames for each convolution and side, and the overlapping windows."""
        windows = (self.overlap - 1) / 2 / self.upsample
        convolutions = 3 * (1 + len(self.coarse)) + 3 * len(self.fine) / self.upsample
        if self.causal:
            return Reach(math.ceil(windows + 2 * convolutions), math.ceil(windows))
        return Reach(math.ceil(windows + convolutions), math.ceil(windows + convolutions))

    def forward(
        self, x: Tensor, time_invariant: Tensor | None = None, mask: Tensor | None = None, n_q: int | None = None
    ) -> Tensor:
        """`time_invariant` [B, C] is added to every frame after the first coarse block, and modulates every block.

        n_q: how many quantizers `x` was made of, for the contrast; training goes without
        """
        frames = x.shape[1]
        if not self.training and (more := -frames % BLOCK):
            exist = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            x, mask = F.pad(x, (0, 0, 0, more)), F.pad(exist, (0, more))
        if mask is not None:
            x = x * mask[..., None]
        x = self.norm(self.embed(x))
        for i, block in enumerate(self.coarse):
            if i == 1 and time_invariant is not None:
                x = x + time_invariant[:, None]
            x = block(self._voiced(x, i, time_invariant), mask)
        x = self.expand(x).reshape(x.shape[0], -1, x.shape[2])
        mask = None if mask is None else mask.repeat_interleave(self.upsample, 1)
        for i, block in enumerate(self.fine, len(self.coarse)):
            x = block(self._voiced(x, i, time_invariant), mask)
        log_size, phase = self.out(self.out_norm(x)).float().chunk(2, -1)
        if n_q is not None:
            log_size = self.contrast(log_size, n_q)
        # exp() of an untrained output must not overflow; 1e2 is above any bin of a full-scale signal.
        spectrum = torch.polar(log_size.exp().clamp(max=1e2), phase)
        if mask is not None:
            spectrum = spectrum * mask[..., None]
        return overlap_add(spectrum[:, : frames * self.upsample], self.hop_length)

    def _voiced(self, x: Tensor, block: int, time_invariant: Tensor | None) -> Tensor:
        if time_invariant is None:
            return x
        scale, shift = self.voice[block](time_invariant)[:, None].chunk(2, -1)
        return torch.addcmul(shift, x, 1 + scale)


class SpectrallyDecoded(AutoencoderCodec):
    """A codec with a `SpectralDecoder`, whose contrast depends on how many quantizers there are."""

    def _speak(self, vectors: Tensor, time_invariant: Tensor | None, mask: Tensor | None, n_q: int) -> Tensor:
        return self.decoder(vectors, time_invariant, mask, n_q)


class SpectralCodec(SpectrallyDecoded):
    """See the module's docstring. `time_invariant=False` is the same codec without the time-invariant part."""

    def __init__(
        self,
        sample_rate: int = 16000,
        hop_length: int = 320,
        n_fft: int = 1280,
        dim: int = 256,
        hidden: int = 768,
        encoder_layers: int = 6,
        decoder_layers: tuple[int, int] = (4, 4),
        upsample: int = 2,
        n_q: int = 4,
        codebook_size: int = 1024,
        code_dim: int = 8,
        time_invariant: bool = True,
        time_invariant_groups: int = 8,
        time_invariant_size: int = 1024,
        early_layers: int = 2,
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.spec = CodecSpec(
            name="spectral",
            sample_rate=sample_rate,
            hop_length=hop_length,
            n_q=n_q,
            codebook_size=codebook_size,
            n_time_invariant=time_invariant_groups if time_invariant else 0,
            time_invariant_size=time_invariant_size if time_invariant else 0,
        )
        coarse, fine = decoder_layers
        self.encoder = SpectralEncoder(n_fft, hop_length, dim, hidden, encoder_layers, early_layers)
        self.quantizer = ResidualQuantizer(dim, n_q, codebook_size, code_dim)
        self.time_invariant = TimeInvariant(dim, time_invariant_groups, time_invariant_size) if time_invariant else None
        self.decoder = SpectralDecoder(hop_length, dim, hidden, (coarse, fine), upsample, time_invariant, n_q)
        reach = self.decoder.reach()
        self.reach = Reach(reach.past, min(reach.future, LOOK_AHEAD))
