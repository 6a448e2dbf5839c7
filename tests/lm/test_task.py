"""Training through Lightning's Trainer: learning, resuming, surviving NaN, averaging."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from valle.common.errors import UserError
from valle.common.optim import OptimConfig, lr_share
from valle.lm import ARConfig, NARConfig
from valle.lm.task import ARTask, LMTask, NARTask
from valle.lm.weights import from_checkpoint, load_lm, save_lm
from valle.training.callbacks import EMA

OPTIM = OptimConfig(lr=5e-3, warmup_steps=10, weight_decay=0.0)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainer_of(steps: int, **options: Any) -> L.Trainer:
    values: dict[str, Any] = {
        "max_steps": steps,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "gradient_clip_val": 1.0,
    }
    return L.Trainer(**(values | options))


def fit(task: LMTask, batches: list[Any], steps: int, ckpt_path: str | None = None, **options: Any) -> L.Trainer:
    trainer = trainer_of(steps, **options)
    trainer.fit(task, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(("kind", "aligned"), [("ar", False), ("ar", True), ("nar", False), ("nar", True)])
def test_learns_a_batch_by_heart(make_config, make_batch, kind, aligned):
    torch.manual_seed(0)
    config = make_config(aligned=aligned, n_q=3)
    task = ARTask(config, OPTIM) if kind == "ar" else NARTask(config, OPTIM, max_prompt_frames=6)
    trainer = fit(task, [make_batch()], 150)
    assert trainer.callback_metrics["train_loss"] < 0.1  # uniform guessing: log 20 = 3.0


@pytest.mark.parametrize("aligned", [False, True])
def test_learns_to_go_on_from_reusable_prompts(make_config, make_batch, aligned):
    """Its prompts see less than a model with other attention lets them: the model must have learned with them."""
    torch.manual_seed(0)
    batch = make_batch()
    losses = []
    for reusable in (True, False):
        task = ARTask(make_config(aligned=aligned, reusable_prompt=reusable), OPTIM)
        fit(task, [batch], 200)
        blind = ARTask(replace(task.config, reusable_prompt=True), OPTIM)
        blind.model.load_state_dict(task.model.state_dict())
        losses.append(float(blind.losses(batch, "val")["loss"]))
    assert losses[0] < 0.2
    assert losses[1] > 3 * losses[0]


def test_prompts_for_training_end_between_phonemes(make_config, make_batch):
    torch.manual_seed(0)
    task, batch, shares = ARTask(make_config(group_size=2, reusable_prompt=True), OPTIM), make_batch(), []
    seen = []
    task.model.register_forward_pre_hook(lambda module, args: seen.append(args[-1]))
    for _ in range(100):
        task.losses(batch, "train")
    for prompts in seen:
        for row, tokens in enumerate(prompts.phonemes.tolist()):
            assert 0 <= tokens < batch.phoneme_lengths[row]
            assert int(prompts.steps[row]) == int(batch.durations[row, :tokens].sum()) // 2
            shares.append(tokens / int(batch.phoneme_lengths[row]))
    assert 0.4 < sum(share > 0 for share in shares) / len(shares) < 0.6
    assert max(shares) > 0.8
    task.losses(batch, "val")
    assert seen[-1].phonemes.tolist() == (batch.phoneme_lengths // 3).tolist()


def test_averaged_task_resumes_where_it_stopped(make_config, make_batch, tmp_path: Path):
    batches = [make_batch()] * 4  # all alike: the order of the data is the loader's to restore

    def task() -> ARTask:
        torch.manual_seed(0)
        return ARTask(make_config(aligned=True), OPTIM)

    straight = task()
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(straight, batches, 12, callbacks=[EMA(0.9), saver], enable_checkpointing=True)
    resumed = task()
    fit(resumed, batches, 12, callbacks=[EMA(0.9)], ckpt_path=str(tmp_path / "epoch=1.ckpt"))
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_average_follows_its_formula(make_config, make_batch, tmp_path: Path):
    torch.manual_seed(0)
    task, seen = ARTask(make_config(), OPTIM), []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            seen.append(pl_module.model.code.weight.detach().clone())

    fit(task, [make_batch()], 5, callbacks=[Watch(), EMA(0.3)])
    average = seen[0]
    for update, weights in enumerate(seen[1:], start=1):
        decay = min(0.3, (update + 1) / (update + 10))
        average = decay * average + (1 - decay) * weights
    torch.testing.assert_close(task.model.code.weight.detach(), average)


def test_checkpoint_and_weights_file_rebuild_the_model(make_config, make_batch, tmp_path: Path):
    task = NARTask(make_config(NARConfig, aligned=True), OPTIM)
    trainer = fit(task, [make_batch()], 3, callbacks=[EMA(0.5)])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model = from_checkpoint(torch.load(tmp_path / "last.ckpt", weights_only=True))
    assert model.config == task.config
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    save_lm(model, tmp_path, "nar")
    loaded = load_lm(tmp_path, "nar")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
    with pytest.raises(UserError, match="no such file"):
        load_lm(tmp_path, "ar")


class Poisoned(ARTask):
    """An `ARTask` whose loss is not a number in the given steps."""

    bad: frozenset[int]

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.global_step in self.bad else loss


def test_steps_without_a_finite_gradient_are_skipped(make_config, make_batch):
    task = Poisoned(make_config(), OPTIM, max_bad_steps=3)
    task.bad = frozenset({2, 3, 6})
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            seen.append(pl_module.model.code.weight.detach().clone())

    fit(task, [make_batch()], 8, callbacks=[Watch()])
    moved = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert moved == [True, False, False, True, True, False, True]
    assert task.bad_steps.skipped == 3
    assert all(torch.isfinite(p).all() for p in task.model.parameters())


def test_training_stops_with_advice_when_nothing_is_finite(make_config, make_batch):
    task = Poisoned(make_config(), OPTIM, max_bad_steps=3)
    task.bad = frozenset({1, 2, 3})
    with pytest.raises(UserError, match=r"3 steps in a row; begin another run with a lower optim\.lr"):
        fit(task, [make_batch()], 8)


def test_validation_reports_every_stage(make_config, make_batch):
    trainer = trainer_of(1)
    metrics = trainer.validate(
        NARTask(make_config(NARConfig), OPTIM), DataLoader([make_batch()], batch_size=None), verbose=False
    )
    assert {"val/loss_2", "val/loss_3", "val/top10_2", "val/loss"} <= metrics[0].keys()
    mean = (metrics[0]["val/loss_2"] + metrics[0]["val/loss_3"]) / 2
    assert metrics[0]["val/loss"] == pytest.approx(mean)


def test_unaligned_data_for_an_aligned_model_is_refused(make_config, make_batch):
    batch = make_batch()
    batch.durations = None
    for kind in ({"aligned": True}, {"reusable_prompt": True}):
        with pytest.raises(UserError, match="needs durations"):
            fit(ARTask(make_config(**kind), OPTIM), [batch], 1)


def test_bf16_training_learns(make_config, make_batch):
    torch.manual_seed(0)
    config: ARConfig = make_config(aligned=True)
    trainer = fit(ARTask(config, OPTIM), [make_batch()], 80, precision="bf16-mixed")
    assert trainer.callback_metrics["train_loss"] < 0.6


def test_schedule_warms_up_and_ends_at_its_floor():
    config = OptimConfig(warmup_steps=10, final_lr_share=0.1)
    shares = [lr_share(step, 110, config) for step in range(111)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[10] == 1.0
    assert shares[60] == pytest.approx(0.55)
    assert shares[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(shares[10:]))
