"""VoCodec (arXiv 2601.13055, ICASSP 2026): a spectral codec of low latency and few operations.

Log-magnitude and phase -> ConvNeXt and attention -> factorised RVQ -> a lighter ConvNeXt -> iSTFT, all causal, so that
the latency is one window. The decoder, the quantizer and the blocks are those of `SpectralCodec`.
Shapes: B utterances, S samples, T frames, C channels.
"""

from __future__ import annotations

from torch import Tensor

from valle.common.errors import UserError
from valle.tokenizers.codecs.attention import LocalAttention
from valle.tokenizers.codecs.base import CodecSpec, arguments
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.quantizers import ResidualQuantizer
from valle.tokenizers.codecs.spectral import SpectralDecoder, SpectralEncoder, SpectrallyDecoded
from valle.tokenizers.codecs.stft import log_magnitude_and_phase
from valle.tokenizers.codecs.time_invariant import TimeInvariant


class PhaseEncoder(SpectralEncoder):
    """A `SpectralEncoder` that hears the phase, too, as its cosine and sine."""

    per_bin = 3

    def spectra(self, wav: Tensor, disguise: Disguise | None) -> Tensor:
        if disguise is not None:
            raise UserError("this codec's encoder hears phases, too: they cannot be disguised")
        return log_magnitude_and_phase(wav, self.n_fft, self.hop_length)


class VoCodec(SpectrallyDecoded):
    """VoCodec at 24 kHz, 100 frames per second and 1 to 6 kbit/s.

    The paper gives the parts and the sum: 30 ms of latency, 349 million multiply-accumulates per second. The sizes of
    the layers are ours, and chosen for these two.
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        hop_length: int = 240,
        n_fft: int = 720,
        dim: int = 192,
        hidden: int = 608,
        encoder_layers: int = 6,
        decoder_layers: int = 5,
        heads: int = 4,
        attention_frames: int = 50,
        causal: bool = True,
        n_q: int = 6,
        codebook_size: int = 1024,
        code_dim: int = 8,
        time_invariant: bool = False,
        time_invariant_groups: int = 8,
        time_invariant_size: int = 1024,
        early_layers: int = 2,
    ) -> None:
        """
        Args:
            sample_rate: Hz.
            hop_length: samples per frame.
            n_fft: window, a multiple of `hop_length`; if causal, the latency.
            dim: channels of a frame.
            hidden: inner channels of a block.
            attention_frames: how far back attention sees, and how far ahead unless causal.
            causal: whether no layer sees later frames. Else the codec is better, and hears all of an utterance first.
            n_q: codes per frame; with quantizer dropout in training, fewer serve as well.
            code_dim: channels in which codes are looked up.
            time_invariant: whether to add the time-invariant part of TiCodec.
            time_invariant_groups: time-invariant codes per utterance.
            time_invariant_size: codes in each of their codebooks.
            early_layers: blocks of the encoder before the time-invariant part reads it.
        """
        super().__init__()
        self.config = arguments(locals())
        if n_fft % hop_length or n_fft < 2 * hop_length or n_fft % 2 or (n_fft - hop_length) % 2:
            raise UserError(f"n_fft must be even and 2, 3, … times an even hop_length: not {n_fft} for {hop_length}")
        if dim % heads:
            raise UserError(f"dim must be a multiple of heads, got {dim} and {heads}")
        self.spec = CodecSpec(
            name="vocodec",
            sample_rate=sample_rate,
            hop_length=hop_length,
            n_q=n_q,
            codebook_size=codebook_size,
            n_time_invariant=time_invariant_groups if time_invariant else 0,
            time_invariant_size=time_invariant_size if time_invariant else 0,
        )
        attention = LocalAttention(dim, heads, attention_frames, 0 if causal else attention_frames)
        self.encoder = PhaseEncoder(n_fft, hop_length, dim, hidden, encoder_layers, early_layers, attention, causal)
        self.quantizer = ResidualQuantizer(dim, n_q, codebook_size, code_dim)
        self.time_invariant = TimeInvariant(dim, time_invariant_groups, time_invariant_size) if time_invariant else None
        self.decoder = SpectralDecoder(
            hop_length, dim, hidden, (decoder_layers, 0), 1, time_invariant, n_q, n_fft // hop_length, causal
        )
        self.reach = self.decoder.reach()
