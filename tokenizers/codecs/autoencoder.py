"""What all codecs built of encoder, residual quantizer, time-invariant part and decoder have in common.

A codec says what its parts are; how they work together, in training, encoding and decoding, stands here once.
Shapes: B utterances, S samples, T frames, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.tokenizers.codecs.base import BLOCK, SpeechCodec, SpeechCodes, frame_mask
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.codecs.quantizers import GroupedResidualQuantizer, ResidualQuantizer
from valle.tokenizers.codecs.time_invariant import TimeInvariant


class FrameEncoder(nn.Module, ABC):
    """An encoder in two steps, so that the time-invariant part can read an early layer."""

    @abstractmethod
    def early_features(self, wav: Tensor, mask: Tensor | None = None, disguise: Disguise | None = None) -> Tensor:
        """`wav` [B, S] to the early layer's output [B, n * T, C]: n steps to a frame.

        mask: bool [B, T], True for frames within the utterance; None if all are. `wav` is zero outside of them.
        disguise: changes what is heard; only for encoders of spectra
        """

    @abstractmethod
    def forward(self, early: Tensor, mask: Tensor | None = None) -> Tensor:
        """The early features to the encoder's output [B, T, C]."""


@dataclass
class CodecOutput:
    """What training needs of one pass.

    wav: [B, 1, S]; codes: [B, T, n_q]; time_invariant_codes: [B, G]; representation: [B, D], TIRE before quantization;
    reference: the same of the reference segment; commitment: scalar; time_invariant_commitment: scalar;
    first: [B, T, C], what quantizer 1 alone gives; voice: [B, D], TIRE as quantized for the decoder;
    pitch: scalar, the loss of a decoder that predicts the pitch
    """

    wav: Tensor
    codes: Tensor
    commitment: Tensor
    time_invariant_codes: Tensor | None = None
    representation: Tensor | None = None
    reference: Tensor | None = None
    time_invariant_commitment: Tensor | None = None
    first: Tensor | None = None
    voice: Tensor | None = None
    pitch: Tensor | None = None


class AutoencoderCodec(SpeechCodec):
    """A codec of four parts, set by its subclass.

    The decoder takes frames [B, T, C], what the time-invariant part adds [B, C] (or None) and the mask of the frames
    (or None), and gives a waveform [B, S].
    """

    encoder: FrameEncoder
    quantizer: ResidualQuantizer | GroupedResidualQuantizer
    time_invariant: TimeInvariant | None
    decoder: nn.Module

    def code_vectors(self) -> Tensor:
        return self.quantizer.code_vectors()

    def time_invariant_vectors(self) -> Tensor | None:
        return None if self.time_invariant is None else self.time_invariant.quantizer.code_vectors()

    def decoding_parts(self) -> list[nn.Module]:
        return [self.decoder] if self.time_invariant is None else [self.decoder, self.time_invariant.out]

    def forward(
        self,
        wav: Tensor,
        reference: Tensor | None = None,
        use_reference: Tensor | None = None,
        depth: Tensor | None = None,
        disguise: Disguise | None = None,
        heard: Tensor | None = None,
    ) -> CodecOutput:
        """One training pass over `wav` [B, 1, S].

        reference:     [B, 1, S'], another segment of the same utterance
        use_reference: bool [B], True where the time-invariant codes of `reference`, not of `wav`, go to the decoder
        depth:         LongTensor [B], quantizers used (quantizer dropout)
        disguise:      of what the encoder hears; not of the reference, nor of what the decoder has to give
        heard:         [B, 1, S], what the encoder hears instead of `wav`
        """
        early = self.encoder.early_features((wav if heard is None else heard)[:, 0], disguise=disguise)
        quantized = self.quantizer(self.encoder(early), depth=depth)
        if self.time_invariant is None:
            decoded, pitch = self._learn(quantized.vectors, None, wav[:, 0])
            return CodecOutput(decoded[:, None], quantized.codes, quantized.loss, first=quantized.first, pitch=pitch)
        representation = chosen = self.time_invariant.encoder(early.transpose(1, 2))
        other = None
        if reference is not None:
            other = self.representation(reference)
            if use_reference is not None:
                chosen = torch.where(use_reference[:, None], other, representation)
        ti = self.time_invariant.quantizer(chosen)
        decoded, pitch = self._learn(quantized.vectors, self.time_invariant.out(ti.vectors), wav[:, 0])
        return CodecOutput(
            decoded[:, None],
            quantized.codes,
            quantized.loss,
            ti.codes,
            representation,
            other,
            ti.loss,
            quantized.first,
            ti.vectors,
            pitch,
        )

    def representation(self, wav: Tensor) -> Tensor:
        """TIRE of `wav` [B, 1, S], before quantization: [B, D]. Raises `UserError` for a codec without it."""
        if self.time_invariant is None:
            raise UserError(f"this codec ('{self.spec.name}') has no time-invariant part")
        mask = None
        if not self.training and (more := -wav.shape[-1] % (BLOCK * self.spec.hop_length)):
            frames, wav = self.spec.frames(wav.shape[-1]), F.pad(wav, (0, more))
            mask = frame_mask(torch.full(wav.shape[:1], frames, device=wav.device), self.spec.frames(wav.shape[-1]))
        early = self.encoder.early_features(wav[:, 0], mask)
        return self.time_invariant.encoder(early.transpose(1, 2), _of_steps(mask, early))

    def _learn(self, vectors: Tensor, time_invariant: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """In training: what the decoder makes of frames [B, T, C] that stand for `target` [B, S], and its own loss."""
        return self.decoder(vectors, time_invariant), None

    def _speak(self, vectors: Tensor, time_invariant: Tensor | None, mask: Tensor | None, n_q: int) -> Tensor:
        """What the decoder makes of frames that `n_q` quantizers gave."""
        return self.decoder(vectors, time_invariant, mask)

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> SpeechCodes:
        return self._encode(wav, lengths, None)

    def encode_disguised(self, wav: Tensor, lengths: Tensor | None, disguise: Disguise) -> SpeechCodes:
        if not isinstance(self.quantizer, ResidualQuantizer):
            return super().encode_disguised(wav, lengths, disguise)
        return self._encode(wav, lengths, disguise)

    @torch.no_grad()
    def _encode(self, wav: Tensor, lengths: Tensor | None, disguise: Disguise | None) -> SpeechCodes:
        size = wav.shape[-1]
        samples = torch.full(wav.shape[:1], size, device=wav.device) if lengths is None else lengths
        frames = -(-samples // self.spec.hop_length)
        mask = None if lengths is None else frame_mask(frames, self.spec.frames(size))
        heard = wav[:, 0] * frame_mask(samples, size)
        early = self.encoder.early_features(heard, mask)
        vectors = self.encoder(early, mask)
        if disguise is None:
            codes = self.quantizer(vectors).codes
        else:
            assert isinstance(self.quantizer, ResidualQuantizer)
            other = self.encoder(self.encoder.early_features(heard, mask, disguise), mask)
            codes = self.quantizer.around(vectors, self.quantizer(other).codes[..., 0])
        if mask is not None:
            codes = codes.masked_fill(~mask[..., None], 0)
        ti = None
        if self.time_invariant is not None:
            ti = self.time_invariant(early.transpose(1, 2), _of_steps(mask, early))[1].codes
        return SpeechCodes(codes.transpose(1, 2), frames, ti)

    def frames(self, codes: SpeechCodes) -> tuple[Tensor, Tensor | None, Tensor]:
        """What `codes` are to the decoder: frames [B, T, C], time-invariant part [B, C], mask [B, T] of the frames."""
        self.check_codes(codes)
        ti = None
        if self.time_invariant is not None and codes.time_invariant is not None:
            ti = self.time_invariant.decode(codes.time_invariant)
        mask = frame_mask(codes.lengths, codes.codes.shape[-1])
        return self.quantizer.decode(codes.codes.transpose(1, 2)), ti, mask

    @torch.no_grad()
    def decode(self, codes: SpeechCodes) -> Tensor:
        vectors, ti, mask = self.frames(codes)
        wav = self._speak(vectors, ti, None if mask.all() else mask, codes.codes.shape[1])
        return (wav * frame_mask(codes.lengths * self.spec.hop_length, wav.shape[-1]))[:, None]


def _of_steps(mask: Tensor | None, early: Tensor) -> Tensor | None:
    """The mask [B, T] of frames as that of the early features [B, n * T, C]."""
    return None if mask is None else mask.repeat_interleave(early.shape[1] // mask.shape[1], 1)
