"""Where each frame stands in the text: pointers, frames in a token, advances.

Shapes: B utterances, L text tokens, T frames. A pointer p is the index of the token that a frame speaks; -1 stands
before the text, and moving to L (the row's own length) or beyond ends the utterance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from valle.common.errors import UserError

IGNORE = -100
"""Target that the cross-entropy skips."""


def frame_pointers(durations: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Pointers [B, frames] and frames already in the token [B, frames] from `durations` [B, L].

    Frames beyond an utterance get the pointer L - 1; mask them by the length.
    """
    ends = durations.cumsum(dim=1)
    time = torch.arange(frames, device=durations.device).expand(len(durations), frames).contiguous()
    pointers = torch.searchsorted(ends, time, right=True).clamp(max=durations.shape[1] - 1)
    return pointers, time - (ends - durations).gather(1, pointers)


def advance_targets(pointers: Tensor, phoneme_lengths: Tensor, code_lengths: Tensor) -> Tensor:
    """Advances [B, T + 1]: into the first frame, from each frame to the next, out of the text; `IGNORE` beyond.

    `pointers` [B, T]. Element t is what the model decides at step t, when frame t - 1 has the pointer of step t.
    """
    steps = torch.arange(pointers.shape[1] + 1, device=pointers.device)
    after = F.pad(pointers, (0, 1))
    after = torch.where(steps == code_lengths[:, None], phoneme_lengths[:, None], after)
    advances = after - F.pad(pointers, (1, 0), value=-1)
    return advances.masked_fill(steps > code_lengths[:, None], IGNORE)


def legal_advances(boundary: Tensor, phoneme_lengths: Tensor, max_advance: int) -> Tensor:
    """Bool [B, L + 1, max_advance + 1]: may a frame at pointer p (row p + 1) move on by a = 0..max_advance tokens?

    Staying needs a token to stay in, moving by one is always legal, and moving by more must skip boundary tokens only.
    `boundary` bool [B, L] is True for the tokens that may last zero frames.
    """
    length = boundary.shape[1]
    exists = torch.arange(length, device=boundary.device) < phoneme_lengths[:, None]
    # Moving from p to p + a skips the tokens p + 1 .. p + a - 1; row r = p + 1 skips r .. r + a - 2.
    skippable = F.pad(boundary & exists, (0, max_advance))
    one = torch.ones_like(skippable[:, : length + 1])
    stay = torch.arange(-1, length, device=boundary.device).expand_as(one) >= 0
    legal = [stay, one]
    for first in range(max_advance - 1):
        legal.append(legal[-1] & skippable[:, first : first + length + 1])
    return torch.stack(legal, dim=-1)


def check_durations(
    durations: Tensor, boundary: Tensor, phoneme_lengths: Tensor, code_lengths: Tensor, max_advance: int
) -> None:
    """Raise `UserError` for durations [B, L] that an aligned model could not speak."""
    pointers, _ = frame_pointers(durations, int(code_lengths.max()))
    advances = advance_targets(pointers, phoneme_lengths, code_lengths)
    legal = legal_advances(boundary, phoneme_lengths, max_advance)
    legal = legal.gather(1, F.pad(pointers + 1, (1, 0))[:, :, None].expand(-1, -1, max_advance + 1))
    wanted = F.one_hot(advances.clamp(0, max_advance), max_advance + 1).bool()
    good = (legal & wanted).any(dim=-1) & (advances <= max_advance)
    if not (good | (advances == IGNORE)).all():
        raise UserError(
            f"durations: an utterance skips text that the model cannot skip (a phoneme of no frames, or more than "
            f"{max_advance - 1} boundary tokens of no frames in a row); raise max_advance or align the data again"
        )
