"""Everything that rebuilds a language model, stored with its weights: `ARConfig`, `NARConfig`, `FlowConfig`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from valle.common.errors import UserError


@dataclass(frozen=True)
class LMConfig:
    """What all models have: facts of codec and text tokenizer first, then the free choices."""

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

    def __post_init__(self) -> None:
        # JSON and YAML have no tuples.
        object.__setattr__(self, "boundary_ids", tuple(self.boundary_ids))
        counts = ("text_vocab_size", "codebook_size", "n_q", "max_advance", "max_spent", "dim", "layers", "heads", "ff")
        self._check_positive(*counts)
        for name in ("dropout", "ti_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"language model config: {name} must be in [0, 1), got {getattr(self, name)}")
        if self.dim % (2 * self.heads):
            raise UserError(
                f"language model config: dim must be a multiple of 2 x heads, got dim {self.dim} and heads {self.heads}"
            )
        if (self.n_time_invariant > 0) != (self.time_invariant_size > 0):
            raise UserError("language model config: give both n_time_invariant and time_invariant_size, or neither")
        if not all(0 < i < self.text_vocab_size for i in self.boundary_ids):
            raise UserError(f"language model config: boundary_ids must be in 1..{self.text_vocab_size - 1}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"language model config: {name} must be at least 1, got {getattr(self, name)}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"boundary_ids": list(self.boundary_ids)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave. Earlier versions stored the settings of all kinds of model: others' are left out."""
        known = {f.name for kind in (ARConfig, NARConfig, FlowConfig) for f in fields(kind)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"language model config: unknown options {', '.join(unknown)}; made by a newer version?")
        own = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in own})


@dataclass(frozen=True)
class ARConfig(LMConfig):
    """Of an `ARModel`."""

    group_size: int = 1
    """Frames that a step predicts at once (VALL-E 2, arXiv 2406.05370). Only for a model that is not `aligned`."""
    reusable_prompt: bool = False
    """True: the prompt does not look at the text that follows it, so it is read once for a voice, not for each text;
    training needs durations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("group_size")
        if self.aligned and self.group_size > 1:
            raise UserError(
                "language model config: an aligned model finds its place frame by frame: group_size must be 1"
            )


@dataclass(frozen=True)
class NARConfig(LMConfig):
    """Of a `NARModel`."""


@dataclass(frozen=True)
class FlowConfig(LMConfig):
    """Of a `FlowModel`."""

    code_dim: int = 8
    """Coordinates of a code; no more are told apart."""
    voice_dim: int = 32
    """Coordinates of a time-invariant code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("code_dim", "voice_dim")
