"""Training of a `FlowModel`: conditional flow matching (arXiv 2210.02747) on tokens, with or without their text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from valle.common.optim import OptimConfig
from valle.lm.config import FlowConfig
from valle.lm.flow import UNKNOWN, FlowModel
from valle.lm.task import LMTask, StartConfig
from valle.tokenizers.codecs.registry import load_codec

if TYPE_CHECKING:
    from valle.data.batch import LMBatch

WRONG_FRAMES = 5
"""Wrong codes come in runs of so many frames, as what an AR model says wrongly does."""


class FlowTask(LMTask):
    """Each utterance gets a random time, noise, and a prompt length; the loss is of the frames behind the prompt."""

    model: FlowModel
    kind = "flow"

    def __init__(
        self,
        config: FlowConfig,
        codec: str,
        optim: OptimConfig = OptimConfig(),
        max_prompt_frames: int = 250,
        no_prompt: float = 0.2,
        unconditional: float = 0.1,
        wrong_codes: float = 0.5,
        no_codes: float = 0.1,
        no_prompt_text: float = 0.5,
        max_bad_steps: int = 20,
        start: StartConfig = StartConfig(),
    ) -> None:
        """In training up to two thirds of an utterance, at most `max_prompt_frames`, are known frames.

        Parameters
        ----------
        codec:          folder of the codec that the tokens were made with: its code vectors are what the model works on
        no_prompt:      share of the utterances without known frames
        unconditional:  share of the utterances with neither known frames nor time-invariant codes nor phonemes, for
                        guidance
        wrong_codes:    up to this share of an utterance's frames have the first code of another one, since an AR model
                        errs, too
        no_codes:       share of the utterances of which no first code is told; only of an aligned model
        no_prompt_text: share of the utterances of whose known frames it is not told what is said in them
        """
        super().__init__(config, optim, max_bad_steps, start)
        self.model = FlowModel(config)
        self.model.start_from_codec(load_codec(codec))
        self._prepare(self.model)
        self.max_prompt_frames = max_prompt_frames
        self.no_prompt, self.unconditional = no_prompt, unconditional
        self.wrong_codes, self.no_codes = wrong_codes, no_codes if config.aligned else 0.0
        self.no_prompt_text = no_prompt_text

    def losses(self, batch: LMBatch, part: str) -> dict[str, Tensor]:
        generator = None
        if part == "val":  # the same noise every time, so that losses compare
            generator = torch.Generator(batch.codes.device).manual_seed(0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, device=batch.codes.device, generator=generator)

        rows, _, frames = batch.codes.shape
        points = self.model.coordinates(batch.codes)
        noise = torch.randn(points.shape, device=points.device, generator=generator)
        # Times near the ends are easy; a logistic-normal density looks at the middle (arXiv 2403.03206).
        time = torch.randn(rows, device=points.device, generator=generator).sigmoid()
        alone = uniform(rows) < self.unconditional
        longest = (batch.code_lengths * 2 // 3).clamp(max=self.max_prompt_frames)
        prompts = (uniform(rows) * (longest + 1)).long() * (uniform(rows) >= self.no_prompt) * ~alone
        is_known = torch.arange(frames, device=points.device) < prompts[:, None]
        runs = uniform(rows, -(-frames // WRONG_FRAMES)) < self.wrong_codes * uniform(rows, 1)
        wrong = runs.repeat_interleave(WRONG_FRAMES, dim=1)[:, :frames] & ~is_known
        first = torch.where(wrong, self._others(batch, uniform(rows)), batch.codes[:, 0])
        first = first.masked_fill((uniform(rows) < self.no_codes)[:, None] & ~is_known, self.config.codebook_size)
        phonemes = batch.phonemes
        if batch.durations is not None:
            untold = (batch.durations.cumsum(dim=1) <= prompts[:, None]) & (uniform(rows, 1) < self.no_prompt_text)
            phonemes = phonemes.masked_fill((untold | alone[:, None]) & (phonemes > 0), UNKNOWN)
        hide = alone | (uniform(rows) < self.config.ti_dropout)
        x = torch.lerp(noise, points, time[:, None, None])
        voice = batch.time_invariant, hide
        velocity = self.model(x, time, first, points, is_known, batch.code_lengths, *voice, phonemes, batch.durations)
        counts = (torch.arange(frames, device=points.device) < batch.code_lengths[:, None]) & ~is_known
        error = (velocity - (points - noise)).square().mean(dim=-1)
        return {"loss": (error * counts).sum() / counts.sum()}

    @staticmethod
    def _others(batch: LMBatch, shift: Tensor) -> Tensor:
        """First codes [B, T] of each utterance's neighbour in the batch, from a place on that `shift` [B] says."""
        lengths = batch.code_lengths.roll(1)[:, None]
        time = torch.arange(batch.codes.shape[2], device=lengths.device) + (shift[:, None] * lengths).long()
        return batch.codes[:, 0].roll(1, dims=0).gather(1, time % lengths)
