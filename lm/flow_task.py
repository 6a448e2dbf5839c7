"""Training of a `FlowModel`: conditional flow matching (arXiv 2210.02747) on tokens, whose text it ignores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from valle.lm.config import LMConfig
from valle.lm.flow import FlowModel
from valle.lm.optim import OptimConfig
from valle.lm.task import LMTask, StartConfig
from valle.tokenizers.codecs.registry import load_codec

if TYPE_CHECKING:
    from valle.data.batch import LMBatch


class FlowTask(LMTask):
    """Each utterance gets a random time, noise, and a prompt length; the loss is of the frames behind the prompt."""

    model: FlowModel
    kind = "flow"

    def __init__(
        self,
        config: LMConfig,
        codec: str,
        optim: OptimConfig = OptimConfig(),
        max_prompt_frames: int = 250,
        no_prompt: float = 0.2,
        unconditional: float = 0.1,
        wrong_codes: float = 0.04,
        max_bad_steps: int = 20,
        start: StartConfig = StartConfig(),
    ) -> None:
        """In training up to two thirds of an utterance, at most `max_prompt_frames`, are known frames.

        Parameters
        ----------
        codec:         folder of the codec that the tokens were made with: its code vectors are what the model works on
        no_prompt:     share of the utterances without known frames
        unconditional: share of the utterances with neither known frames nor time-invariant codes, for guidance
        wrong_codes:   share of the frames whose first code is a random one, since an AR model errs, too
        """
        super().__init__(config, optim, max_bad_steps, start)
        self.model = FlowModel(config)
        self.model.start_from_codec(load_codec(codec))
        self._prepare(self.model)
        self.max_prompt_frames = max_prompt_frames
        self.no_prompt, self.unconditional, self.wrong_codes = no_prompt, unconditional, wrong_codes

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
        wrong = (uniform(rows, frames) < self.wrong_codes) & ~is_known
        first = torch.where(wrong, torch.randint_like(batch.codes[:, 0], self.config.codebook_size), batch.codes[:, 0])
        hide = alone | (uniform(rows) < self.config.ti_dropout)
        x = torch.lerp(noise, points, time[:, None, None])
        velocity = self.model(x, time, first, points, is_known, batch.code_lengths, batch.time_invariant, hide)
        counts = (torch.arange(frames, device=points.device) < batch.code_lengths[:, None]) & ~is_known
        error = (velocity - (points - noise)).square().mean(dim=-1)
        return {"loss": (error * counts).sum() / counts.sum()}
