"""The non-autoregressive model: predicts quantizer j of all frames from those before it (VALL-E section 4.2.2).

Shapes: B utterances, L text tokens, G time-invariant codes, T frames, K codes, D width.
Stages are numbered by the quantizer they predict: 1..n_q - 1, counted from 0 (the paper's j = 2..n_q).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.lm.alignment import frame_pointers
from valle.lm.config import NARConfig
from valle.lm.prefix import PrefixEmbedding
from valle.lm.transformer import Transformer


class NARModel(nn.Module):
    """The model of all stages; embeddings and output layers are shared as in VALL-E."""

    config_class = NARConfig

    def __init__(self, config: NARConfig) -> None:
        super().__init__()
        if config.n_q < 2:
            raise UserError("a codec with one quantizer needs no NAR model: the AR predicts all of it")
        self.config = config
        self.prefix = PrefixEmbedding(config)
        # Table j embeds quantizer j; as in VALL-E it is also the output layer of stage j.
        self.codes = nn.Parameter(torch.empty(config.n_q, config.codebook_size, config.dim))
        nn.init.normal_(self.codes, std=0.02)
        self.transformer = Transformer(config, adapt=lambda: nn.Embedding(config.n_q - 1, 2 * config.dim))

    def forward(
        self,
        phonemes: Tensor,
        phoneme_lengths: Tensor,
        codes: Tensor,
        code_lengths: Tensor,
        stage: Tensor,
        prompt_lengths: Tensor,
        time_invariant: Tensor | None = None,
        durations: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, K] of quantizer `stage` [B] for all frames.

        codes:          [B, n_q, T]; of the frames beyond the prompt only the quantizers before `stage` are looked at
        prompt_lengths: [B], frames at the start that are known with all their quantizers
        durations:      [B, L], for aligned models
        """
        prefix = self.prefix(phonemes, phoneme_lengths, time_invariant)
        frames = self._embed(codes, stage, prompt_lengths)
        count = frames.shape[1]
        if prefix.context is not None:
            if durations is None:
                raise ValueError("an aligned model needs the durations of the text tokens")
            frames = frames + self.prefix.frame_context(prefix.context, *frame_pointers(durations, count))
        size = prefix.x.shape[1]
        time = torch.arange(count, device=codes.device)
        counters = torch.cat((torch.arange(size, device=codes.device), time))
        mask = torch.cat((prefix.exists, time < code_lengths[:, None]), dim=1)[:, None, None, :]
        hidden = self.transformer(torch.cat((prefix.x, frames), dim=1), counters[None], mask, stage - 1)
        return torch.bmm(hidden[:, size:], self.codes[stage].transpose(1, 2)).float()

    def _embed(self, codes: Tensor, stage: Tensor, prompt_lengths: Tensor) -> Tensor:
        """Sum [B, T, D] of the embeddings of the known quantizers."""
        time = torch.arange(codes.shape[2], device=codes.device)
        in_prompt = time < prompt_lengths[:, None]
        total: Tensor | float = 0.0
        for quantizer, table in enumerate(self.codes):
            known = in_prompt | (quantizer < stage)[:, None]
            total = total + F.embedding(codes[:, quantizer], table) * known[:, :, None]
        assert isinstance(total, Tensor)
        return total
