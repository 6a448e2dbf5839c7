"""`LMConfig`: everything that rebuilds a language model; stored with its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from valle.common.errors import UserError


@dataclass(frozen=True)
class LMConfig:
    """Shape of a model: AR, NAR or flow. Facts of codec and text tokenizer come first, then the free choices."""

    text_vocab_size: int
    """Ids of the text tokenizer; 0 is padding."""
    codebook_size: int
    n_q: int = 1
    """Quantizers of the codec. The AR predicts the first, the NAR the others."""
    n_time_invariant: int = 0
    """Time-invariant codes per utterance (TiCodec); 0 for other codecs."""
    time_invariant_size: int = 0
    aligned: bool = False
    """True: each frame knows its phoneme (VALL-E R, arXiv 2406.07855; RALL-E, arXiv 2404.03204); needs durations."""
    group_size: int = 1
    """Frames that a step predicts at once (VALL-E 2, arXiv 2406.05370). Only for an AR model that is not `aligned`."""
    reusable_prompt: bool = False
    """True: the prompt does not look at the text that follows it, so it is read once for a voice, not for each text;
    training needs durations. Only for an AR model."""
    boundary_ids: tuple[int, ...] = ()
    """Text ids that may last zero frames: the word boundary and punctuation. Only for `aligned`."""
    max_advance: int = 2
    """Text tokens that one frame may move on; more than 1 skips boundary tokens of zero frames. Only for `aligned`."""
    max_spent: int = 32
    """Frames in a phoneme that are told apart; longer stays count as `max_spent - 1`. Only for `aligned`."""
    dim: int = 384
    layers: int = 6
    heads: int = 6
    ff: int = 1024
    """Hidden width of the SwiGLU feed-forward layer."""
    dropout: float = 0.1
    ti_dropout: float = 0.1
    """Share of training utterances whose time-invariant codes are hidden, so that the model can do without."""
    rope_base: float = 10_000.0
    code_dim: int = 8
    """Coordinates of a code; no more are told apart. Only for a flow."""
    voice_dim: int = 32
    """Coordinates of a time-invariant code. Only for a flow."""

    def __post_init__(self) -> None:
        # JSON and YAML have no tuples.
        object.__setattr__(self, "boundary_ids", tuple(self.boundary_ids))
        for name in (
            "text_vocab_size",
            "codebook_size",
            "n_q",
            "group_size",
            "max_advance",
            "max_spent",
            "dim",
            "layers",
            "heads",
            "ff",
            "code_dim",
            "voice_dim",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"language model config: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("dropout", "ti_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"language model config: {name} must be in [0, 1), got {getattr(self, name)}")
        if self.dim % (2 * self.heads):
            raise UserError(
                f"language model config: dim must be a multiple of 2 x heads, got dim {self.dim} and heads {self.heads}"
            )
        if self.aligned and self.group_size > 1:
            raise UserError(
                "language model config: an aligned model finds its place frame by frame: group_size must be 1"
            )
        if (self.n_time_invariant > 0) != (self.time_invariant_size > 0):
            raise UserError("language model config: give both n_time_invariant and time_invariant_size, or neither")
        if not all(0 < i < self.text_vocab_size for i in self.boundary_ids):
            raise UserError(f"language model config: boundary_ids must be in 1..{self.text_vocab_size - 1}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"boundary_ids": list(self.boundary_ids)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LMConfig:
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise UserError(f"language model config: unknown options {', '.join(unknown)}; made by a newer version?")
        return cls(**values)
