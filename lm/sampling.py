"""From logits to a choice. Shapes: B rows, K classes.

All randomness comes in as uniform numbers drawn beforehand, so a row's result depends on its own seed only: not on
the batch it stands in, nor on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from valle.common.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to choose among what the models predict."""

    temperature: float = 1.0
    top_k: int = 0
    """Only the k most probable codes; 0: all."""
    top_p: float = 1.0
    """Only the most probable codes that together reach this probability."""
    ras_window: int = 10
    """Repetition-aware sampling (VALL-E 2, arXiv 2406.05370, section 3.3.1): frames looked back; 0 turns it off."""
    ras_threshold: float = 0.1
    """If the chosen code fills more than this share of the window, choose again from the unfiltered distribution."""
    greedy: bool = False
    """Always the most probable code and advance; nothing above has an effect then."""
    duration_temperature: float = 1.0
    """Temperature of the advances through the text. Aligned models only."""
    max_phone_frames: int = 30
    """Frames after which an aligned model must leave a phoneme."""
    max_boundary_frames: int = 60
    """The same for a word boundary or punctuation, that is, a pause."""
    live_phone_frames: int = 15
    """Where a phoneme is heard while it is spoken: what gets stuck there cannot be spoken again, so it may not last."""
    live_boundary_frames: int = 30
    """The same for a pause."""
    min_frames_per_token: float = 1.0
    """A plain model may not end before this many frames per text token."""
    max_frames_per_token: float = 20.0
    """A plain model is stopped at this many frames per text token."""
    max_frames: int = 3000
    """Either kind is stopped at this many frames."""
    nar_temperature: float = 0.0
    """Temperature of the NAR model; 0 takes the most probable codes."""
    flow_steps: int = 6
    """Steps of a flow from noise to speech."""
    flow_temperature: float = 1.0
    """Standard deviation of the noise that a flow starts from; less is smoother."""
    flow_guidance: float = 2.0
    """How far a flow goes towards the voice: 1 as far as it has learned, more further (classifier-free guidance)."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.duration_temperature <= 0 or self.nar_temperature < 0:
            raise UserError("sampling: temperatures must be above 0; near 0 the most probable code is taken")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(f"sampling: needs top_k >= 0 and 0 < top_p <= 1, got {self.top_k} and {self.top_p}")
        if self.ras_window < 0 or not 0 <= self.ras_threshold <= 1:
            raise UserError("sampling: needs ras_window >= 0 and ras_threshold in 0..1")
        if min(self.max_phone_frames, self.max_boundary_frames, self.max_frames) < 1:
            raise UserError("sampling: max_phone_frames, max_boundary_frames and max_frames must be at least 1")
        if min(self.live_phone_frames, self.live_boundary_frames) < 1:
            raise UserError("sampling: live_phone_frames and live_boundary_frames must be at least 1")
        if self.flow_steps < 1 or min(self.flow_guidance, self.flow_temperature) < 0:
            raise UserError("sampling: needs flow_steps >= 1, flow_guidance >= 0 and flow_temperature >= 0")
        if not 0 <= self.min_frames_per_token <= self.max_frames_per_token:
            raise UserError("sampling: needs 0 <= min_frames_per_token <= max_frames_per_token")

    def longest(self, live: bool) -> tuple[int, int]:
        """Most frames in a phoneme, and in a pause; `live`: heard while it is spoken."""
        if not live:
            return self.max_phone_frames, self.max_boundary_frames
        phone, pause = self.live_phone_frames, self.live_boundary_frames
        return min(phone, self.max_phone_frames), min(pause, self.max_boundary_frames)


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities [B, K] of logits [B, K] after temperature, then top-k, then top-p; what is cut off is 0.

    Top-p keeps the class that crosses the threshold; ties at a cut are kept together.
    """
    probs = (logits / temperature).softmax(dim=-1)
    if 0 < top_k < probs.shape[-1]:
        least = probs.topk(top_k, dim=-1).values[:, -1:]
        probs = probs.where(probs >= least, 0.0)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    if top_p < 1:
        ranked = probs.sort(dim=-1, descending=True).values
        before = ranked.cumsum(dim=-1) - ranked
        least = ranked.where(before < top_p, 2.0).min(dim=-1, keepdim=True).values
        probs = probs.where(probs >= least, 0.0)
    return probs / probs.sum(dim=-1, keepdim=True)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Classes [B] drawn from probabilities [B, K] with one number in [0, 1) per row, by inverting the distribution."""
    cumulative = probs.cumsum(dim=-1)
    # Scaled to the sum that rounding left, and kept below it, so that no class of probability 0 is ever drawn.
    target = uniform.clamp(max=1 - 1e-6)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


def choose(logits: Tensor, recent: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Codes [B] from logits [B, K].

    recent:  [B, window], the codes before, -1 where there were none yet
    uniform: [B, 2], one number for the draw and one for drawing again
    """
    if sampling.greedy:
        return logits.argmax(dim=-1)
    probs = probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p)
    choice = draw(probs, uniform[:, 0])
    if not sampling.ras_window:
        return choice
    share = (recent == choice[:, None]).sum(dim=-1) / sampling.ras_window
    again = draw(logits.softmax(dim=-1), uniform[:, 1])
    return torch.where(share > sampling.ras_threshold, again, choice)
