"""HiFi-Codec (arXiv 2305.02765) and TiCodec (2310.00014): one convolutional backbone, two ways to quantize.

HiFi-Codec cuts the channels into groups with a residual quantizer each; TiCodec has one group, and codes for what
does not change in time. `valle.tokenizers.codecs.released` reads the weights that their authors give away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from valle.common.errors import UserError
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.base import CodecSpec, Reach, arguments
from valle.tokenizers.codecs.conv_layers import NORM_GROUP, ConvDecoder, ConvEncoder
from valle.tokenizers.codecs.quantizers import GroupedResidualQuantizer
from valle.tokenizers.codecs.time_invariant import TimeInvariant


class ConvCodec(AutoencoderCodec):
    """The backbone. A frame is `prod(upsample_rates)` samples: 8·5·4·2 = 320 or 8·5·3·2 = 240 in released models."""

    name: str

    def __init__(
        self,
        n_q: int,
        groups: int,
        time_invariant: bool,
        sample_rate: int = 24000,
        upsample_rates: tuple[int, ...] = (8, 5, 4, 2),
        upsample_kernels: tuple[int, ...] = (16, 11, 8, 4),
        channels: int = 512,
        decoder_channels: int = 512,
        residual_kernels: tuple[int, ...] = (3, 7, 11),
        residual_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        codebook_size: int = 1024,
        time_invariant_groups: int = 8,
        time_invariant_size: int = 1024,
    ) -> None:
        """
        Args:
            n_q: codes per frame, in the order layer by layer and within a layer group by group.
            groups: groups of channels that are quantized apart; must divide `n_q`.
            time_invariant: whether there are time-invariant codes.
            sample_rate: Hz.
            upsample_rates: of the decoder's stages; the encoder has the same in reverse order, as all of the following.
            upsample_kernels: of their convolutions; each exceeds its rate by an even number.
            channels: of a frame, before and after quantization.
            decoder_channels: at the entry of the decoder's first stage.
            residual_kernels: of the residual blocks in each stage.
            residual_dilations: of the convolutions in each of these blocks.
            codebook_size: codes in each codebook.
            time_invariant_groups: time-invariant codes per utterance.
            time_invariant_size: codes in each of their codebooks.
        """
        super().__init__()
        self.config = arguments(locals())
        if len(upsample_rates) != len(upsample_kernels) or len(residual_kernels) != len(residual_dilations):
            raise UserError("there must be as many upsample_kernels as _rates, and residual_dilations as _kernels")
        if any(kernel % 2 == 0 for kernel in residual_kernels):
            raise UserError(f"residual_kernels must be odd, got {list(residual_kernels)}")
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise UserError(f"an upsampling kernel must exceed its rate by an even number: not {kernel} for {rate}")
        if n_q % groups:
            raise UserError(f"n_q must be a multiple of groups, got {n_q} and {groups}")
        stages = len(upsample_rates)
        if channels % (NORM_GROUP << (stages - 1)):
            raise UserError(f"channels must be a multiple of {NORM_GROUP << (stages - 1)}, got {channels}")
        self.spec = CodecSpec(
            name=self.name,
            sample_rate=sample_rate,
            hop_length=math.prod(upsample_rates),
            n_q=n_q,
            codebook_size=codebook_size,
            n_time_invariant=time_invariant_groups if time_invariant else 0,
            time_invariant_size=time_invariant_size if time_invariant else 0,
        )
        self.encoder = ConvEncoder(
            channels, upsample_rates[::-1], upsample_kernels[::-1], residual_kernels[::-1], residual_dilations[::-1]
        )
        self.quantizer = GroupedResidualQuantizer(channels, groups, n_q // groups, codebook_size)
        self.time_invariant = None
        if time_invariant:
            early, late = (channels >> stages) << stages // 2, decoder_channels >> stages // 2
            if early != late:
                raise UserError(
                    f"the time-invariant part joins {early} channels of the encoder to {late} of the decoder"
                )
            self.time_invariant = TimeInvariant(
                early, time_invariant_groups, time_invariant_size, dim=early, project=False
            )
        self.decoder = ConvDecoder(
            channels, decoder_channels, upsample_rates, upsample_kernels, residual_kernels, residual_dilations
        )
        self.reach = _reach(upsample_rates, upsample_kernels, residual_kernels, residual_dilations)


def _reach(
    rates: Sequence[int], kernels: Sequence[int], residual_kernels: Sequence[int], dilations: Sequence[Sequence[int]]
) -> Reach:
    """How many frames the decoder's convolutions see to each side."""
    # Each of a residual block's dilated convolutions is followed by a plain one.
    block = max(sum(k // 2 * (d + 1) for d in ds) for k, ds in zip(residual_kernels, dilations, strict=True))
    frames, steps = 3.0, 1
    for rate, kernel in zip(rates, kernels, strict=True):
        frames += (kernel - 1) // rate / steps
        steps *= rate
        frames += block / steps
    side = math.ceil(frames + 3 / steps)
    return Reach(side, side)


class HifiCodec(ConvCodec):
    """HiFi-Codec: two groups of two residual layers, four codes per frame."""

    name = "hificodec"

    def __init__(self, n_q: int = 4, groups: int = 2, time_invariant: bool = False, **backbone: Any) -> None:
        super().__init__(n_q, groups, time_invariant, **backbone)


class TiCodec(ConvCodec):
    """TiCodec: 1, 2 or 4 codes per frame and eight time-invariant ones."""

    name = "ticodec"

    def __init__(self, n_q: int = 2, groups: int = 1, time_invariant: bool = True, **backbone: Any) -> None:
        super().__init__(n_q, groups, time_invariant, **backbone)
