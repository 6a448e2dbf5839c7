"""Speech that went wrong, seen by its codes alone: `find_fault`.

Shapes: T frames, L text tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.lm.request import Generated, Request
from valle.lm.sampling import Sampling

LOOP_SECONDS = 0.8
"""Codes that repeat themselves for so long within speech are a loop: no speech sound lasts so long."""
LOOP_PERIODS = 8
"""Loops of up to so many frames are looked for."""
RUSHED_SECONDS = 0.03
"""A mean of less than this for a phone is too fast to understand; fast speakers take twice as long."""


def find_fault(said: Generated, request: Request, boundary: Tensor, sampling: Sampling, frame_rate: float) -> str:
    """What is wrong with `said`: "max_length", "stuck", "repeats", "rushed", or "" for nothing.

    boundary: bool, True for the text ids that may be silent
    """
    if said.stop_reason == "max_length":
        return "max_length"
    silent_token = boundary[request.phonemes[request.prompt_phonemes :]]
    speaking = torch.ones_like(said.codes, dtype=torch.bool)
    if said.durations is not None:
        limit = torch.where(silent_token, sampling.max_boundary_frames, sampling.max_phone_frames)
        if bool((said.durations >= limit).any()):
            return "stuck"
        speaking = ~silent_token.repeat_interleave(said.durations)
    if longest_loop(said.codes, speaking) >= LOOP_SECONDS * frame_rate:
        return "repeats"
    if len(said.codes) < RUSHED_SECONDS * frame_rate * int((~silent_token).sum()):
        return "rushed"
    return ""


def longest_loop(codes: Tensor, speaking: Tensor) -> int:
    """Most frames in a row of `codes` [T] that each equal the one a period before, for any short period.

    Only frames where `speaking` [T] count: a pause may well be the same code over and over.
    """
    longest = 0
    for period in range(1, min(LOOP_PERIODS, len(codes) - 1) + 1):
        same = (codes[period:] == codes[:-period]) & speaking[period:]
        breaks = F.pad((~same).nonzero()[:, 0], (1, 0), value=-1)
        gaps = F.pad(breaks, (0, 1), value=len(same)).diff() - 1
        longest = max(longest, int(gaps.max()))
    return longest
