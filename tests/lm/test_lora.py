"""What is trained, from where, and with which memory: LoRA, starting weights, recomputed activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from valle.common.errors import UserError
from valle.common.optim import OptimConfig, build_optimizer, lr_share
from valle.lm import ARModel, from_checkpoint, save_lm
from valle.lm.task import ARTask, NARTask, StartConfig
from valle.lm.weights import LoRAConfig, add_lora, merge_lora


def ar_logits(model: ARModel, batch) -> torch.Tensor:
    steps = model.steps(batch.phoneme_lengths, batch.codes[:, 0], batch.code_lengths, batch.durations)
    return model(batch.phonemes, batch.phoneme_lengths, steps, batch.time_invariant).codes


def test_lora_trains_little_and_merges_without_a_trace(make_config: Callable, make_batch: Callable) -> None:
    pytest.importorskip("peft")
    torch.manual_seed(0)
    task, batch = ARTask(make_config(), start=StartConfig(lora=LoRAConfig(rank=2, alpha=4))), make_batch()
    before = ar_logits(task.model, batch)
    trained = [n for n, p in task.model.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    optimizer = build_optimizer(task.model, OptimConfig(lr=0.05))
    for _ in range(3):
        task.losses(batch, "train")["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted = ar_logits(task.model, batch)
    assert (adapted - before).abs().max() > 1e-3

    facts = {"state_dict": {f"model.{n}": w for n, w in task.model.state_dict().items()}}
    task.on_save_checkpoint(facts)
    merged = from_checkpoint(facts)
    torch.testing.assert_close(ar_logits(merged, batch), adapted, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == ARModel(task.config).state_dict().keys()

    with pytest.raises(UserError, match="no layers named nonsense"):
        add_lora(ARModel(make_config()), LoRAConfig(layers=("nonsense",)))
    plain = ARModel(make_config())
    merge_lora(plain)  # nothing to do
    assert plain.state_dict().keys() == merged.state_dict().keys()


def test_training_starts_from_a_model_of_the_same_shape(make_config: Callable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = ARModel(make_config(dropout=0.3))
    save_lm(source, tmp_path, "ar", torch.float32)
    start = StartConfig(model=str(tmp_path))
    task = ARTask(make_config(), start=start)
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])
    with pytest.raises(UserError, match="another shape"):
        ARTask(make_config(dim=64), start=start)


@pytest.mark.parametrize("kind", [ARTask, NARTask])
def test_recomputed_activations_give_the_same_gradients(
    kind: type, make_config: Callable, make_batch: Callable
) -> None:
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        task = kind(make_config(dropout=0.2), start=StartConfig(recompute_activations=recompute)).train()
        torch.manual_seed(1)
        task.losses(make_batch(), "train")["loss"].backward()
        grads.append({n: p.grad for n, p in task.model.named_parameters() if p.grad is not None})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_schedules() -> None:
    eden = OptimConfig(schedule="eden", warmup_steps=100, eden_steps=1000, eden_epochs=2.0)
    assert lr_share(0, 10, eden, 500) == 0.5
    # Step 2000 is in epoch 4: (1 + 2²)^-1/4 for the steps and the same for the epochs.
    assert lr_share(2000, 10, eden, 500) == pytest.approx(5**-0.5)
    linear = OptimConfig(schedule="linear", warmup_steps=10, final_lr_share=0.0)
    assert [lr_share(s, 110, linear) for s in (0, 9, 10, 60, 110)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])
