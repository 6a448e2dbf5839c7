"""The autoregressive model: predicts the codes of the first quantizer, one frame after another (VALL-E section 4.2.1).

Shapes: B utterances, L text tokens, G time-invariant codes, T frames, S steps, N frames of a step, K codes, D width.

Two kinds. The plain one must find its place in the text by attention and ends with an EOS code. The aligned one
(`config.aligned`) is told the phoneme of each frame and predicts, besides the code, how far to move on in the text; it
ends by moving beyond it, so it can neither skip nor repeat a phoneme.

Steps: both kinds take T + 1 steps for T frames. A plain step t predicts frame t, the last one EOS. An aligned step 0
only decides on which token the speech starts; step t > 0 predicts frame t - 1 and on which token frame t is. A plain
model with groups (VALL-E 2, arXiv 2406.05370) predicts the next N = `config.group_size` frames in each step.

In VALL-E the texts of prompt and target see each other, so all that is computed of a prompt changes with the text. With
`config.reusable_prompt` the prompt (time-invariant codes, its text, its steps) sees only itself, the rest sees it all;
without a prompt, speech in a voice that is given by time-invariant codes alone, nothing differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from valle.lm.alignment import IGNORE, advance_targets, frame_pointers, legal_advances
from valle.lm.config import ARConfig
from valle.lm.prefix import PrefixEmbedding
from valle.lm.transformer import Transformer, prefix_causal_mask


@dataclass
class ARSteps:
    """Inputs and targets of a batch of known speech; targets are `IGNORE` where nothing is to be predicted.

    previous: [B, S, N], the last codes known before the step
    pointers: [B, S], and frames_in_token [B, S]; None for the plain kind
    codes:    [B, S, N], targets (plain: K is EOS)
    advances: [B, S], targets; None for the plain kind
    """

    previous: Tensor
    codes: Tensor
    pointers: Tensor | None = None
    frames_in_token: Tensor | None = None
    advances: Tensor | None = None


@dataclass
class ARLogits:
    """Logits of S steps.

    codes:    [B, S, N, K], or [B, S, N, K + 1] with EOS last (plain)
    advances: [B, S, max_advance + 1], -inf where illegal; None for the plain kind
    """

    codes: Tensor
    advances: Tensor | None


@dataclass
class Prompts:
    """How much of known speech is its prompt: text tokens and steps, [B] each."""

    phonemes: Tensor
    steps: Tensor


class ARModel(nn.Module):
    """The model; `steps` makes the inputs and targets of known speech, `forward` their logits."""

    config_class = ARConfig

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config
        self.prefix = PrefixEmbedding(config)
        self.code = nn.Embedding(config.codebook_size + 1, config.dim)
        self.transformer = Transformer(config)
        grouped = config.group_size > 1
        self.group = nn.Linear(config.group_size * config.dim, config.dim, bias=False) if grouped else nn.Identity()
        outputs = config.codebook_size + (not config.aligned)
        self.code_head = nn.Linear(config.dim, config.group_size * outputs, bias=False)
        if config.aligned:
            self.advance_head = nn.Linear(config.dim, config.max_advance + 1)
        boundary = torch.zeros(config.text_vocab_size, dtype=torch.bool)
        boundary[list(config.boundary_ids)] = True
        self.register_buffer("is_boundary", boundary, persistent=False)
        self.is_boundary: Tensor
        nn.init.normal_(self.code.weight, std=0.02)
        nn.init.normal_(self.code_head.weight, std=0.02)

    @property
    def bos(self) -> int:
        """Input id of "no code yet"."""
        return self.config.codebook_size

    @property
    def eos(self) -> int:
        """Output id of "the speech is over" in the plain kind."""
        return self.config.codebook_size

    def steps(
        self,
        phoneme_lengths: Tensor,
        codes: Tensor,
        code_lengths: Tensor,
        durations: Tensor | None = None,
    ) -> ARSteps:
        """Inputs and targets for `codes` [B, T] of the first quantizer; `durations` [B, L] for the aligned kind."""
        frames, group = codes.shape[1], self.config.group_size
        beyond = torch.arange(frames, device=codes.device) >= code_lengths[:, None]
        if not self.config.aligned:
            more = group - frames % group  # at least one: the end is predicted, too
            targets = F.pad(codes.masked_fill(beyond, IGNORE), (0, more), value=IGNORE)
            targets.scatter_(1, code_lengths[:, None], self.eos)
            previous = F.pad(codes, (group, more), value=self.bos)[:, : frames + more]
            return ARSteps(previous.unflatten(1, (-1, group)), targets.unflatten(1, (-1, group)))
        if durations is None:
            raise ValueError("an aligned model needs the durations of the text tokens")
        pointers, frames_in_token = frame_pointers(durations, frames)
        return ARSteps(
            previous=F.pad(codes, (2, 0), value=self.bos)[:, : frames + 1, None],
            codes=F.pad(codes.masked_fill(beyond, IGNORE), (1, 0), value=IGNORE)[..., None],
            pointers=F.pad(pointers, (1, 0), value=-1),
            frames_in_token=F.pad(frames_in_token, (1, 0)),
            advances=advance_targets(pointers, phoneme_lengths, code_lengths),
        )

    def forward(
        self,
        phonemes: Tensor,
        phoneme_lengths: Tensor,
        steps: ARSteps,
        time_invariant: Tensor | None = None,
        prompts: Prompts | None = None,
    ) -> ARLogits:
        """Logits of all steps of known speech; `phonemes` [B, L], `time_invariant` [B, G] or None.

        prompts: of a model whose prompt is reusable; None: there are none
        """
        prefix = self.prefix(phonemes, phoneme_lengths, time_invariant)
        context, pointers, in_prompt = prefix.context, steps.pointers, None
        size, count, device = prefix.x.shape[1], steps.previous.shape[1], phonemes.device
        counters = (torch.arange(size, device=device), torch.arange(count, device=device))
        if self.config.reusable_prompt and prompts is not None:
            # Without a prompt the voice alone is not worth keeping: it sees the text.
            ends = (prompts.phonemes + self.config.n_time_invariant).where(prompts.phonemes > 0, 0)
            in_text = counters[0] < ends[:, None]
            in_frames = counters[1] < prompts.steps[:, None]
            in_prompt = torch.cat((in_text, in_frames), dim=1)
            if context is not None and pointers is not None:
                # Two tables in one: the prompts' steps look into the second.
                pointers = pointers + in_frames * context.shape[1]
                context = torch.cat((context, self.prefix.prompt_context(phonemes, prompts.phonemes)), dim=1)
        frames = self.embed(context, steps.previous, pointers, steps.frames_in_token)
        mask = prefix_causal_mask(prefix.exists, count, in_prompt)
        hidden = self.transformer(torch.cat((prefix.x, frames), dim=1), torch.cat(counters)[None], mask)
        legal = self.legal_advances(phonemes, phoneme_lengths) if self.config.aligned else None
        return self.logits(hidden[:, size:], legal, steps.pointers)

    def embed(
        self, context: Tensor | None, previous: Tensor, pointers: Tensor | None, frames_in_token: Tensor | None
    ) -> Tensor:
        """Inputs [B, S, D] of steps whose last known codes are `previous` [B, S, N]; `context`: see `Prefix`."""
        x = self.group(self.code(previous).flatten(2))
        if context is not None and pointers is not None and frames_in_token is not None:
            x = x + self.prefix.frame_context(context, pointers, frames_in_token)
        return x

    def legal_advances(self, phonemes: Tensor, phoneme_lengths: Tensor) -> Tensor:
        """Bool [B, L + 1, max_advance + 1], see `alignment.legal_advances`."""
        return legal_advances(self.is_boundary[phonemes], phoneme_lengths, self.config.max_advance)

    def logits(self, hidden: Tensor, legal: Tensor | None, pointers: Tensor | None) -> ARLogits:
        """Logits of `hidden` [B, S, D]; `legal` and `pointers` [B, S] for the aligned kind."""
        codes = self.code_head(hidden).float().unflatten(-1, (self.config.group_size, -1))
        if legal is None or pointers is None:
            return ARLogits(codes, None)
        index = (pointers + 1)[:, :, None].expand(-1, -1, legal.shape[2])
        advances = self.advance_head(hidden).float()
        return ARLogits(codes, advances.masked_fill(~legal.gather(1, index), float("-inf")))
