from __future__ import annotations

import pytest
import torch

from valle.common.errors import UserError
from valle.data.batch import LMBatch
from valle.lm import NARConfig, NARModel


def model_of(config) -> NARModel:
    torch.manual_seed(0)
    model = NARModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def logits_of(model: NARModel, batch: LMBatch, stage: list[int], prompts: list[int]) -> torch.Tensor:
    places = torch.tensor(stage), torch.tensor(prompts), batch.time_invariant, batch.durations
    return model(batch.phonemes, batch.phoneme_lengths, batch.codes, batch.code_lengths, *places)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_sees_the_quantizers_before_it_and_the_whole_prompt(make_config, make_batch, stage):
    model, prompt = model_of(make_config(NARConfig)), 4
    before = logits_of(model, make_batch((8,)), [stage], [prompt])
    for quantizer in range(3):
        for frame in (1, 6):
            batch = make_batch((8,))
            batch.codes[0, quantizer, frame] = (batch.codes[0, quantizer, frame] + 1) % 20
            change = (logits_of(model, batch, [stage], [prompt]) - before).abs().sum(-1)[0]
            if frame < prompt or quantizer < stage:
                assert (change > 0).all(), (quantizer, frame)
            else:
                assert (change == 0).all(), (quantizer, frame)


def test_rows_may_be_at_different_stages(make_config, make_batch):
    model, batch = model_of(make_config(NARConfig)), make_batch((8, 6))
    mixed = logits_of(model, batch, [1, 2], [3, 0])
    torch.testing.assert_close(mixed[0], logits_of(model, batch, [1, 1], [3, 0])[0])
    torch.testing.assert_close(mixed[1], logits_of(model, batch, [2, 2], [3, 0])[1])
    assert (mixed[0] - logits_of(model, batch, [2, 2], [3, 0])[0]).abs().max() > 0.01


@pytest.mark.parametrize("aligned", [False, True])
def test_padding_changes_nothing(make_config, make_batch, aligned):
    model, batch = model_of(make_config(NARConfig, aligned=aligned)), make_batch((9, 4, 11))
    together = logits_of(model, batch, [1, 2, 1], [2, 0, 5])
    for row, (length, frames) in enumerate(
        zip(batch.phoneme_lengths.tolist(), batch.code_lengths.tolist(), strict=True)
    ):
        one = slice(row, row + 1)
        alone = LMBatch(
            batch.phonemes[one, :length],
            batch.phoneme_lengths[one],
            batch.codes[one, :, :frames],
            batch.code_lengths[one],
            batch.time_invariant[one],
            batch.durations[one, :length],
        )
        got = logits_of(model, alone, [[1, 2, 1][row]], [[2, 0, 5][row]])
        torch.testing.assert_close(got[0], together[row, :frames], atol=1e-5, rtol=1e-5)


def test_embedding_and_head_of_a_quantizer_are_one(make_config, make_batch):
    model = model_of(make_config(NARConfig))
    batch = make_batch((8,))
    logits = logits_of(model, batch, [2], [0])
    with torch.no_grad():
        model.codes[2] *= 2  # with no prompt, table 2 is only the head of stage 2
    torch.testing.assert_close(logits_of(model, batch, [2], [0]), 2 * logits)


def test_one_quantizer_needs_no_nar(make_config):
    with pytest.raises(UserError, match="no NAR"):
        NARModel(make_config(NARConfig, n_q=1))
