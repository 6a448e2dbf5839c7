"""What both language models know before the first frame: the voice (time-invariant codes) and the text.

Shapes: B utterances, G time-invariant codes, L text tokens, P = G + L, T frames, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.lm.config import LMConfig

CONTEXT = 4
"""Text tokens that an aligned frame sees as input: the previous, its own and the next two."""


@dataclass
class Prefix:
    """The embedded prefix of a batch.

    x:       [B, P, D]
    exists:  bool [B, P], False for padding
    context: [B, L + 1, D], row p + 1 describes the text around pointer p; None if the model is not aligned
    """

    x: Tensor
    exists: Tensor
    context: Tensor | None


class PrefixEmbedding(nn.Module):
    """Embeds [time-invariant codes | text] and, for aligned models, the text around each pointer."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.text = nn.Embedding(config.text_vocab_size, config.dim, padding_idx=0)
        # One table per group; the last row of each is the learned "no voice given".
        self.group_rows = config.time_invariant_size + 1
        self.voice = nn.Embedding(config.n_time_invariant * self.group_rows, config.dim)
        nn.init.normal_(self.text.weight, std=0.02)
        nn.init.normal_(self.voice.weight, std=0.02)
        if config.aligned:
            self.context = nn.Linear(CONTEXT * config.dim, config.dim)
            self.spent = nn.Embedding(config.max_spent, config.dim)
            nn.init.normal_(self.spent.weight, std=0.02)

    @property
    def voice_tables(self) -> Tensor:
        """The embeddings of each group's codes, a view [G, rows, D]."""
        return self.voice.weight.view(-1, self.group_rows, self.config.dim)

    def forward(self, phonemes: Tensor, phoneme_lengths: Tensor, time_invariant: Tensor | None) -> Prefix:
        """Embed `phonemes` [B, L] and `time_invariant` [B, G] (None: the voice is unknown)."""
        batch, length = phonemes.shape
        text_exists = torch.arange(length, device=phonemes.device) < phoneme_lengths[:, None]
        text = self.text(phonemes) * text_exists[:, :, None]
        voice = self._voice(batch, time_invariant)
        exists = F.pad(text_exists, (voice.shape[1], 0), value=True)
        context = self._context(text) if self.config.aligned else None
        return Prefix(torch.cat((voice, text), dim=1), exists, context)

    def prompt_context(self, phonemes: Tensor, prompt_phonemes: Tensor) -> Tensor:
        """`Prefix.context` of the prompts' text, the first `prompt_phonemes` [B] tokens, as if nothing followed it."""
        in_prompt = torch.arange(phonemes.shape[1], device=phonemes.device) < prompt_phonemes[:, None]
        return self._context(self.text(phonemes) * in_prompt[:, :, None])

    def frame_context(self, context: Tensor, pointers: Tensor, frames_in_token: Tensor) -> Tensor:
        """What frames at `pointers` [B, T] (-1..L-1) see of the text, [B, T, D]; `frames_in_token` [B, T]."""
        index = (pointers + 1)[:, :, None].expand(-1, -1, context.shape[2])
        return context.gather(1, index) + self.spent(frames_in_token.clamp(max=self.config.max_spent - 1))

    def _voice(self, batch: int, codes: Tensor | None) -> Tensor:
        groups, none = self.config.n_time_invariant, self.group_rows - 1
        device = self.voice.weight.device
        if codes is None:
            codes = torch.full((batch, groups), none, device=device)
        elif codes.shape != (batch, groups):
            raise ValueError(f"time-invariant codes must be [{batch}, {groups}], got {tuple(codes.shape)}")
        if self.training and self.config.ti_dropout:
            hidden = torch.rand(batch, 1, device=device) < self.config.ti_dropout
            codes = codes.masked_fill(hidden, none)
        return self.voice(codes + torch.arange(groups, device=device) * self.group_rows)

    def _context(self, text: Tensor) -> Tensor:
        # Pointer -1 sees two tokens of padding before the text, pointer L - 1 two behind it.
        windows = F.pad(text, (0, 0, 2, 2)).unfold(1, CONTEXT, 1)
        return self.context(windows.transpose(2, 3).flatten(2))
