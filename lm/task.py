"""Training of the language models as Lightning modules.

The tasks differ in their model and their loss; optimizer, schedule and the guard against non-finite
gradients are shared. A batch is a `valle.data.batch.LMBatch`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from valle.common.errors import UserError
from valle.common.optim import BadSteps, OptimConfig, build_optimizer, build_schedule
from valle.lm.alignment import IGNORE, check_durations
from valle.lm.ar import ARModel, Prompts
from valle.lm.codebook_init import start_from_codec, start_voice_from_codec
from valle.lm.config import ARConfig, LMConfig, NARConfig
from valle.lm.nar import NARModel
from valle.lm.weights import LanguageModel, LoRAConfig, add_lora, load_lm
from valle.tokenizers.codecs.registry import load_codec

if TYPE_CHECKING:
    from valle.data.batch import LMBatch


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the targets [...] that are not `IGNORE`, of logits [..., K]; 0 if there are none."""
    count = (targets != IGNORE).sum().clamp(min=1)
    summed = F.cross_entropy(
        logits.flatten(0, -2),
        targets.flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return summed / count


@torch.no_grad()
def accuracy(logits: Tensor, targets: Tensor, top: int) -> Tensor:
    """Share of the targets [...] that are among the `top` best of logits [..., K]."""
    valid = targets != IGNORE
    score = logits.gather(-1, targets.clamp(min=0)[..., None])
    # The rank by counting: a sort of all logits would cost more than the head that made them.
    hit = (logits > score).sum(dim=-1) < top
    return (hit & valid).sum() / valid.sum().clamp(min=1)


ADVICE = "begin another run with a lower optim.lr, a higher optim.warmup_steps, or trainer.gradient_clip_val: 1.0"
"""When the gradient is never finite."""


_CHANGE_NO_SHAPE = ("dropout", "ti_dropout", "reusable_prompt")
"""Settings of a model that its weights do not depend on."""


@dataclass(frozen=True)
class StartConfig:
    """What a model starts from, and what is trained of it."""

    model: str | None = None
    """Folder of a model whose weights are the start (finetuning); default: random weights."""
    lora: LoRAConfig | None = None
    """Train a low-rank adaptation of the transformer instead of all weights."""
    recompute_activations: bool = False
    """Save memory: compute the inside of each layer a second time for the backward pass (a third more work)."""


class LMTask(L.LightningModule, ABC):
    """What training an AR and a NAR have in common.

    Optimizer steps whose gradient is not finite are skipped and counted; after `max_bad_steps` in a row training
    stops. The checkpoint holds `config`, so that a model can be rebuilt from it alone.
    """

    model: LanguageModel
    kind: ClassVar[str]

    def __init__(self, config: LMConfig, optim: OptimConfig, max_bad_steps: int, start: StartConfig) -> None:
        super().__init__()
        self.config = config
        self.optim = optim
        self.bad_steps = BadSteps(max_bad_steps, ADVICE)
        self.start = start

    def _prepare(self, model: LanguageModel) -> None:
        """Start where `self.start` says."""
        start = self.start
        model.transformer.recompute = start.recompute_activations
        if start.model is not None:
            source = load_lm(start.model, self.kind)
            free = {name: value for name, value in vars(model.config).items() if name in _CHANGE_NO_SHAPE}
            if model.config != replace(source.config, **free):
                raise UserError(
                    f"{start.model}/{self.kind}.safetensors has another shape than model.config says; "
                    f"'valle train {self.kind} --model {start.model}' takes the shape from there"
                )
            model.load_state_dict(source.state_dict())
        if start.lora is not None:
            add_lora(model, start.lora)

    @abstractmethod
    def losses(self, batch: LMBatch, part: str) -> dict[str, Tensor]:
        """Scalars to log, among them "loss", for `part` "train" or "val"."""

    def training_step(self, batch: LMBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: LMBatch, batch_idx: int) -> None:
        self._step(batch, "val")

    def _step(self, batch: LMBatch, part: str) -> Tensor:
        if self.config.aligned:
            self._check_alignment(batch)
        values = self.losses(batch, part)
        loss = values["loss"]
        named = {f"{part}/{name}": value.detach() for name, value in values.items()}
        self.log_dict(named, batch_size=len(batch.codes), sync_dist=part == "val")
        # Progress bars show few things well: the loss of the part is the one.
        self.log(f"{part}_loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(batch.codes))
        return loss

    def _check_alignment(self, batch: LMBatch) -> None:
        if batch.durations is None:
            raise UserError(
                "an aligned model needs durations; tokenize with an aligner, or set model.config.aligned: false"
            )
        boundary = torch.isin(batch.phonemes, torch.tensor(self.config.boundary_ids, device=batch.phonemes.device))
        lengths = batch.phoneme_lengths, batch.code_lengths
        check_durations(batch.durations, boundary, *lengths, self.config.max_advance)

    def configure_optimizers(self) -> Any:
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UserError("trainer: give max_steps or max_epochs; the learning-rate schedule ends with them")
        optimizer = build_optimizer(self.model, self.optim)
        # At least one: an epoch may be a part of an accumulated step.
        steps_per_epoch = max(1.0, self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        schedule = build_schedule(optimizer, int(total), self.optim, steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip; or, if the gradient is not finite, drop it, which makes this optimizer step do nothing.

        The decision falls on the gradients because they are the same on all devices, other than the loss. A strategy
        that keeps the gradients to itself (DeepSpeed) does both, too, and calls `count_step` instead.
        """
        if getattr(self.trainer.strategy, "guards_gradients", False):
            return
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if torch.isfinite(norm):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            optimizer.zero_grad(set_to_none=True)
        self.count_step(norm)

    def count_step(self, norm: Tensor) -> None:
        """Log an optimizer step whose gradient has this norm; if it is not finite, the step was skipped."""
        self.bad_steps.count(bool(torch.isfinite(norm)))
        self.log_dict({"train/grad_norm": norm, "train/skipped_steps": float(self.bad_steps.skipped)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lm_kind"] = self.kind
        checkpoint["lm_config"] = self.config.to_dict()
        checkpoint["lm_lora"] = None if self.start.lora is None else asdict(self.start.lora)
        checkpoint["lm_skipped_steps"] = self.bad_steps.skipped  # DeepSpeed has a `skipped_steps` of its own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.bad_steps.skipped = checkpoint["lm_skipped_steps"]


class ARTask(LMTask):
    """Trains an `ARModel`."""

    model: ARModel
    config: ARConfig
    kind = "ar"

    def __init__(
        self,
        config: ARConfig,
        optim: OptimConfig = OptimConfig(),
        advance_weight: float = 1.0,
        label_smoothing: float = 0.0,
        max_bad_steps: int = 20,
        codec: str | None = None,
        start: StartConfig = StartConfig(),
    ) -> None:
        """`advance_weight` weighs the loss of the text position, `label_smoothing` is that of the codes.

        `codec`: folder of the codec that the tokens were made with, if the codes' embeddings and output layer are to
        start from its codebooks (`valle.lm.codebook_init`).
        """
        super().__init__(config, optim, max_bad_steps, start)
        self.model = ARModel(config)
        if codec is not None:
            points = load_codec(codec)
            heads = self.model.code_head.weight.detach().unflatten(0, (config.group_size, -1))
            for table in (self.model.code.weight.detach(), *heads):
                start_from_codec(table[None], points)
            start_voice_from_codec(self.model.prefix.voice_tables, points)
        self._prepare(self.model)
        self.advance_weight = advance_weight
        self.label_smoothing = label_smoothing

    def losses(self, batch: LMBatch, part: str) -> dict[str, Tensor]:
        steps = self.model.steps(batch.phoneme_lengths, batch.codes[:, 0], batch.code_lengths, batch.durations)
        prompts = self._prompts(batch, part) if self.config.reusable_prompt else None
        logits = self.model(batch.phonemes, batch.phoneme_lengths, steps, batch.time_invariant, prompts)
        code_loss = cross_entropy(logits.codes, steps.codes, self.label_smoothing if part == "train" else 0.0)
        values = {
            "loss": code_loss,
            "code_loss": code_loss,
            "top1": accuracy(logits.codes, steps.codes, 1),
            "top10": accuracy(logits.codes, steps.codes, 10),
        }
        if logits.advances is not None and steps.advances is not None:
            advance_loss = cross_entropy(logits.advances, steps.advances)
            values["loss"] = code_loss + self.advance_weight * advance_loss
            values["advance_loss"] = advance_loss
            values["advance_top1"] = accuracy(logits.advances, steps.advances, 1)
        return values

    def _prompts(self, batch: LMBatch, part: str) -> Prompts:
        """In training half of the utterances begin with a prompt, of any length; in validation a third is prompt."""
        if batch.durations is None:
            raise UserError(
                "a model with a reusable prompt needs durations, to know which frames speak the prompt's text; "
                "tokenize with an aligner, or set model.config.reusable_prompt: false"
            )
        lengths = batch.phoneme_lengths
        share = torch.full(lengths.shape, 1 / 3, device=lengths.device)
        if part == "train":
            share = torch.rand(lengths.shape, device=lengths.device) * torch.randint_like(lengths, 2)
        phonemes = (share * lengths).long()
        frames = F.pad(batch.durations.cumsum(dim=1), (1, 0)).gather(1, phonemes[:, None])[:, 0]
        return Prompts(phonemes, frames // self.config.group_size)


class NARTask(LMTask):
    """Trains a `NARModel`: in each step every utterance gets a stage and a prompt length drawn at random."""

    model: NARModel
    kind = "nar"

    def __init__(
        self,
        config: NARConfig,
        optim: OptimConfig = OptimConfig(),
        max_prompt_frames: int = 150,
        label_smoothing: float = 0.0,
        max_bad_steps: int = 20,
        codec: str | None = None,
        start: StartConfig = StartConfig(),
    ) -> None:
        """In training up to a third of an utterance, at most `max_prompt_frames`, serves as prompt.

        VALL-E has 3 s, which is the default at 50 frames a second.

        `codec`: see `ARTask`.
        """
        super().__init__(config, optim, max_bad_steps, start)
        self.model = NARModel(config)
        if codec is not None:
            points = load_codec(codec)
            start_from_codec(self.model.codes, points)
            start_voice_from_codec(self.model.prefix.voice_tables, points)
        self._prepare(self.model)
        self.max_prompt_frames = max_prompt_frames
        self.label_smoothing = label_smoothing

    def losses(self, batch: LMBatch, part: str) -> dict[str, Tensor]:
        longest = (batch.code_lengths // 3).clamp(max=self.max_prompt_frames)
        if part == "train":
            share = torch.rand(len(longest), device=longest.device)
            stage = torch.randint(1, self.config.n_q, longest.shape, device=longest.device)
            return self._stage_losses(batch, stage, (share * (longest + 1)).long(), self.label_smoothing)
        values: dict[str, Tensor] = {}
        for number in range(1, self.config.n_q):
            of_stage = self._stage_losses(batch, torch.full_like(longest, number), longest, 0.0)
            values |= {f"{name}_{number + 1}": value for name, value in of_stage.items()}
        losses = [value for name, value in values.items() if name.startswith("loss")]
        return values | {"loss": torch.stack(losses).mean()}

    def _stage_losses(self, batch: LMBatch, stage: Tensor, prompts: Tensor, smoothing: float) -> dict[str, Tensor]:
        logits = self.model(
            batch.phonemes,
            batch.phoneme_lengths,
            batch.codes,
            batch.code_lengths,
            stage,
            prompts,
            batch.time_invariant,
            batch.durations,
        )
        rows = torch.arange(len(stage), device=stage.device)
        targets = batch.codes[rows, stage]
        time = torch.arange(targets.shape[1], device=stage.device)
        known = (time < prompts[:, None]) | (time >= batch.code_lengths[:, None])
        targets = targets.masked_fill(known, IGNORE)
        return {
            "loss": cross_entropy(logits, targets, smoothing),
            "top10": accuracy(logits, targets, 10),
        }
