"""What every speech codec is: `CodecSpec`, `SpeechCodes` and the abstract `SpeechCodec`.

Shapes: B utterances, S samples, T frames, n_q quantizers, G time-invariant codes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from valle.common.errors import UserError
from valle.tokenizers.codecs.disguise import Disguise


@dataclass(frozen=True)
class CodecSpec:
    """The facts a language model or a tool needs to know of a codec; stored with every artifact."""

    name: str
    sample_rate: int
    """Hz."""
    hop_length: int
    """Samples per frame."""
    n_q: int
    """Quantizers per frame."""
    codebook_size: int
    n_time_invariant: int = 0
    """Time-invariant codes per utterance (TiCodec, section 2.2); 0 where the codec has none."""
    time_invariant_size: int = 0
    """Codes in each time-invariant codebook."""

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    def frames(self, samples: int) -> int:
        """Frames that cover `samples` samples: the last frame may be partly filled."""
        return -(-samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecSpec:
        return cls(**values)


@dataclass
class SpeechCodes:
    """Codes of a batch of utterances.

    codes:          LongTensor [B, n_q, T]; frames at and beyond an utterance's length are 0
    lengths:        LongTensor [B], frames
    time_invariant: LongTensor [B, G], or None where the codec has none
    """

    codes: Tensor
    lengths: Tensor
    time_invariant: Tensor | None = None

    def __post_init__(self) -> None:
        if self.codes.dim() != 3:
            raise ValueError(f"codes must be [B, n_q, T], got {tuple(self.codes.shape)}")
        if self.lengths.shape != self.codes.shape[:1]:
            raise ValueError(f"lengths must be [{self.codes.shape[0]}], got {tuple(self.lengths.shape)}")
        if self.time_invariant is not None and self.time_invariant.shape[:1] != self.codes.shape[:1]:
            raise ValueError(
                f"time_invariant must be [{self.codes.shape[0]}, G], got {tuple(self.time_invariant.shape)}"
            )

    def __getitem__(self, index: int) -> SpeechCodes:
        """One utterance, trimmed to its length, as a batch of one."""
        length = int(self.lengths[index])
        ti = None if self.time_invariant is None else self.time_invariant[index : index + 1]
        return SpeechCodes(self.codes[index : index + 1, :, :length], self.lengths[index : index + 1], ti)

    def first(self, n_q: int) -> SpeechCodes:
        """What the first `n_q` quantizers say, in the same voice."""
        return SpeechCodes(self.codes[:, :n_q], self.lengths, self.time_invariant)

    def to(self, device: torch.device | str) -> SpeechCodes:
        ti = None if self.time_invariant is None else self.time_invariant.to(device)
        return SpeechCodes(self.codes.to(device), self.lengths.to(device), ti)


BLOCK = 32
"""Where lengths are many, frames are filled up to whole blocks: of each length oneDNN keeps .1 MB per convolution."""


@dataclass(frozen=True)
class Reach:
    """How many frames before and after its own decide on what a frame sounds like."""

    past: int
    future: int


class DecodeStream(ABC):
    """One utterance, decoded while its frames come; made by `SpeechCodec.decode_stream`."""

    def __init__(self) -> None:
        self.finished = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames, `codes` [n_q, T] with any T; give the audio [S] that is certain by now, if any."""
        if self.finished:
            raise ValueError("the stream has been finished; start another one for the next utterance")
        if codes.dim() != 2:
            raise ValueError(f"codes must be [n_q, T], got {tuple(codes.shape)}")
        return self._push(codes)

    def finish(self) -> Tensor:
        """The rest of the audio [S]: all pieces together are T * hop_length samples."""
        if self.finished:
            raise ValueError("the stream has been finished already")
        self.finished = True
        return self._finish()

    @abstractmethod
    def _push(self, codes: Tensor) -> Tensor: ...

    @abstractmethod
    def _finish(self) -> Tensor: ...


class SpeechCodec(nn.Module, ABC):
    """A codec: waveform to codes and back.

    Encoding or decoding an utterance inside a padded batch equals doing it alone.
    `config` rebuilds the codec: `build_codec(codec.spec.name, codec.config)`.
    """

    spec: CodecSpec
    config: dict[str, Any]
    reach: Reach | None = None
    """Of the decoder, for `decode_stream`; None where a frame may depend on all the others."""

    @abstractmethod
    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> SpeechCodes:
        """Encode `wav` [B, 1, S] at `spec.sample_rate`; `lengths` [B] in samples (default: all of S).

        Gives `spec.frames(length)` frames for each utterance. What stands in `wav` beyond a length is ignored.
        """

    @abstractmethod
    def decode(self, codes: SpeechCodes) -> Tensor:
        """Decode to a waveform [B, 1, T * hop_length], zero beyond each utterance's length.

        Accepts fewer quantizers than `spec.n_q`: the first `codes.codes.shape[1]` are used.
        """

    def encode_disguised(self, wav: Tensor, lengths: Tensor | None, disguise: Disguise) -> SpeechCodes:
        """`encode`, but quantizer 1 hears the speech `disguise`d: the others code what is missing to the true voice.

        From such codes a model learns what to add to speech whose first quantizer is in nobody's voice. Raises
        `UserError` for a codec that cannot.
        """
        raise UserError(f"codec '{self.spec.name}' does not hear disguises; they are for spectral codecs")

    def decode_stream(self, time_invariant: Tensor | None = None) -> DecodeStream:
        """Start decoding an utterance whose frames are still to come; `time_invariant`: its codes [G].

        Causal codecs give exactly what `decode` gives; the others wait for `reach.future` frames, and then come within
        -40 dB of it. Raises `UserError` if the codec cannot.
        """
        from valle.tokenizers.codecs.stream import WindowStream

        if self.reach is None:
            raise UserError(f"codec '{self.spec.name}' cannot decode a stream; decode the whole utterance instead")
        return WindowStream(self, self.reach, time_invariant)

    def code_vectors(self) -> Tensor | None:
        """What each code of each quantizer adds to a frame, [n_q, K, C]; None where a codec does not say."""
        return None

    def time_invariant_vectors(self) -> Tensor | None:
        """What each time-invariant code stands for, [G, K, C]; None where a codec has none or does not say."""
        return None

    def decoding_parts(self) -> list[nn.Module]:
        """The parts that can learn on without changing any code; none unless a codec says so."""
        return []

    @property
    def fingerprint(self) -> str:
        """Hash (16 hex digits) of the weights that decide on codes, as stored in fp16.

        Codecs of equal fingerprint make equal codes, though their decoders may differ: tokens and language models go
        with either.
        """
        decoding = {id(t) for part in self.decoding_parts() for t in (*part.parameters(), *part.buffers())}
        digest = hashlib.sha256(repr(self.spec).encode())
        for name, tensor in sorted(self.state_dict(keep_vars=True).items()):
            if id(tensor) not in decoding:
                stored = tensor.detach().cpu().half() if tensor.is_floating_point() else tensor.detach().cpu()
                digest.update(name.encode())
                digest.update(stored.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_codes(self, codes: SpeechCodes) -> None:
        """Raise `ValueError` for codes that this codec cannot have made."""
        n_q = codes.codes.shape[1]
        if not 1 <= n_q <= self.spec.n_q:
            raise ValueError(f"codec '{self.spec.name}' has {self.spec.n_q} quantizers, got codes of {n_q}")
        if codes.codes.numel() and not 0 <= int(codes.codes.min()) <= int(codes.codes.max()) < self.spec.codebook_size:
            raise ValueError(f"codes of '{self.spec.name}' are in 0..{self.spec.codebook_size - 1}")
        groups = 0 if codes.time_invariant is None else codes.time_invariant.shape[1]
        if groups != self.spec.n_time_invariant:
            raise ValueError(
                f"codec '{self.spec.name}' needs {self.spec.n_time_invariant} time-invariant codes, got {groups}"
            )


def arguments(names: dict[str, Any]) -> dict[str, Any]:
    """A codec's `config`, from the `locals()` of its constructor before any other name is set; ready for JSON."""
    kept = {name: value for name, value in names.items() if name not in ("self", "__class__")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """Mask [B, size], True where the position lies within its utterance's length."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]
