"""The spectral TiCodec: STFT -> ConvNeXt -> RVQ -> ConvNeXt -> iSTFT, with time-invariant codes.

All layers run at the frame rate, not at the sample rate, so that it trains and decodes on a CPU. The trunk is that of
Vocos (arXiv 2306.00814), the factorised codebooks those of DAC (2306.06546), the time-invariant part TiCodec's
(2310.00014). Shapes: B utterances, S samples, T frames, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from valle.tokenizers.codecs.attention import LocalAttention
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec, FrameEncoder
from valle.tokenizers.codecs.base import CodecSpec, DecodeStream, Reach, arguments
from valle.tokenizers.codecs.convnext import ConvNeXtBlock
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.harmonic import HarmonicDecoder, HarmonicStream
from valle.tokenizers.codecs.quantizers import ResidualQuantizer
from valle.tokenizers.codecs.spectral_decoder import SpectralDecoder
from valle.tokenizers.codecs.stft import log_magnitude
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
        harmonic: bool = False,
    ) -> None:
        """`harmonic`: with a `HarmonicDecoder`, which speaks a pitch of its own."""
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
        sizes = hop_length, dim, hidden, (coarse, fine), upsample, time_invariant
        self.decoder = HarmonicDecoder(sample_rate, *sizes) if harmonic else SpectralDecoder(*sizes, n_q)
        reach = self.decoder.reach()
        self.reach = Reach(reach.past, min(reach.future, LOOK_AHEAD))

    def _learn(self, vectors: Tensor, time_invariant: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.decoder, HarmonicDecoder):
            return self.decoder.learn(vectors, time_invariant, target)
        return super()._learn(vectors, time_invariant, target)

    def decode_stream(self, time_invariant: Tensor | None = None) -> DecodeStream:
        if isinstance(self.decoder, HarmonicDecoder):
            assert self.reach is not None
            return HarmonicStream(self, self.reach, time_invariant)
        return super().decode_stream(time_invariant)
