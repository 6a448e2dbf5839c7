from __future__ import annotations

from typing import Any

import pytest
import torch

from valle.common.errors import UserError
from valle.data.batch import LMBatch
from valle.lm import ARConfig, ARModel, ARSteps
from valle.lm.alignment import IGNORE
from valle.lm.ar import Prompts
from valle.lm.task import cross_entropy


def steps_of(model: ARModel, batch: LMBatch) -> ARSteps:
    return model.steps(batch.phoneme_lengths, batch.codes[:, 0], batch.code_lengths, batch.durations)


def logits_of(model: ARModel, batch: LMBatch) -> torch.Tensor:
    """All logits of a batch in one tensor [B, S, *]; the -inf of illegal advances become 0."""
    out = model(batch.phonemes, batch.phoneme_lengths, steps_of(model, batch), batch.time_invariant)
    codes = out.codes.flatten(2)
    return codes if out.advances is None else torch.cat((codes, out.advances.nan_to_num(neginf=0.0)), dim=-1)


def model_of(config: ARConfig) -> ARModel:
    """A model whose parts all matter: fresh weights are too small for a difference to show."""
    torch.manual_seed(0)
    model = ARModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_no_step_sees_the_future(make_config, make_batch, kind):
    model, batch = model_of(make_config(**kind)), make_batch((8,))
    seen = {}
    model.code.register_forward_hook(lambda module, args, out: seen.update(x=out) or out.requires_grad_())
    logits = logits_of(model, batch)
    for step in (0, 3, logits.shape[1] - 2):
        (gradient,) = torch.autograd.grad(logits[0, step].square().sum(), seen["x"], retain_graph=True)
        strength = gradient[0].abs().sum(-1)
        assert (strength[: step + 1] > 0).all()
        assert (strength[step + 1 :] == 0).all()


def test_prefix_is_seen_whole_and_sees_itself_both_ways(make_config, make_batch, kind):
    model, batch = model_of(make_config(**kind)), make_batch((8,))
    hidden, embedded = {}, {}
    model.transformer.blocks[0].register_forward_hook(lambda module, args, out: hidden.update(x=out))
    model.prefix.text.register_forward_hook(lambda module, args, out: embedded.update(text=out))
    model.prefix.voice.register_forward_hook(lambda module, args, out: embedded.update(voice=out))
    logits = logits_of(model, batch)
    for of, part in ((hidden["x"][0, 0], "text"), (hidden["x"][0, 2], "text"), (hidden["x"][0, 5], "voice")):
        (gradient,) = torch.autograd.grad(of.square().sum(), embedded[part], retain_graph=True)
        assert (gradient[0].abs().sum(-1) > 0).all()
    for part in ("text", "voice"):
        (gradient,) = torch.autograd.grad(logits[0, 0].square().sum(), embedded[part], retain_graph=True)
        assert (gradient[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("changes", [{}, {"group_size": 3}, {"aligned": True}], ids=["plain", "grouped", "aligned"])
def test_a_reusable_prompt_sees_only_itself(make_config, make_batch, changes):
    model, batch = model_of(make_config(**changes, reusable_prompt=True)), make_batch((8,))
    steps, voices, seen = steps_of(model, batch), 2, {}
    frames = int(batch.durations[0, :5].sum()) // model.config.group_size
    prompts = Prompts(torch.tensor([5]), torch.tensor([frames]))
    model.transformer.register_forward_hook(lambda module, args, out: seen.update(hidden=out[0]))

    def hidden(**other: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of the voice and the prompt's text, the other text, the prompt's steps and the other steps."""
        inputs = {"phonemes": batch.phonemes, "time_invariant": batch.time_invariant} | other
        model(inputs["phonemes"], batch.phoneme_lengths, steps, inputs["time_invariant"], prompts)
        return seen["hidden"].split([voices + 5, 3, frames, steps.previous.shape[1] - frames])

    def differ(of: tuple[torch.Tensor, ...]) -> list[bool]:
        return [not torch.equal(a, b) for a, b in zip(of, hidden(), strict=True)]

    for place in range(8):
        phonemes = batch.phonemes.clone()
        phonemes[0, place] = 4 + (phonemes[0, place] + 1) % 8
        in_prompt = place < 5
        assert differ(hidden(phonemes=phonemes)) == [in_prompt, True, in_prompt, True]
    assert differ(hidden(time_invariant=(batch.time_invariant + 1) % 5)) == [True] * 4
    for place, in_prompt in ((1, True), (frames, False)):
        before = hidden()
        steps.previous[0, place, 0] = (steps.previous[0, place, 0] + 1) % 20
        assert differ(before) == [False, False, in_prompt, True]


def test_padding_changes_nothing(make_config, make_batch, kind):
    model, batch = model_of(make_config(**kind)), make_batch((9, 4, 11))
    together = logits_of(model, batch)
    for row, (length, frames) in enumerate(
        zip(batch.phoneme_lengths.tolist(), batch.code_lengths.tolist(), strict=True)
    ):
        alone = LMBatch(
            batch.phonemes[row : row + 1, :length],
            batch.phoneme_lengths[row : row + 1],
            batch.codes[row : row + 1, :, :frames],
            batch.code_lengths[row : row + 1],
            batch.time_invariant[row : row + 1],
            batch.durations[row : row + 1, :length],
        )
        steps = frames // model.config.group_size + 1
        torch.testing.assert_close(logits_of(model, alone)[0], together[row, :steps], atol=1e-5, rtol=1e-5)


def test_targets_of_all_kinds(make_config):
    lengths = torch.tensor([3, 3]), torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2])
    plain = ARModel(make_config()).steps(*lengths)
    assert plain.previous[..., 0].tolist() == [[20, 5, 6, 7], [20, 8, 9, 0]]
    assert plain.codes[..., 0].tolist() == [[5, 6, 7, 20], [8, 9, 20, IGNORE]]
    pairs = ARModel(make_config(group_size=2)).steps(*lengths)
    assert pairs.previous.tolist() == [[[20, 20], [5, 6]], [[20, 20], [8, 9]]]
    assert pairs.codes.tolist() == [[[5, 6], [7, 20]], [[8, 9], [20, IGNORE]]]
    threes = ARModel(make_config(group_size=3)).steps(*lengths)
    assert threes.previous.tolist() == [[[20, 20, 20], [5, 6, 7]], [[20, 20, 20], [8, 9, 0]]]
    assert threes.codes.tolist() == [[[5, 6, 7], [20, IGNORE, IGNORE]], [[8, 9, 20], [IGNORE, IGNORE, IGNORE]]]
    durations = torch.tensor([[0, 2, 1], [1, 1, 0]])
    aligned = ARModel(make_config(aligned=True)).steps(*lengths, durations)
    assert aligned.previous[..., 0].tolist() == [[20, 20, 5, 6], [20, 20, 8, 9]]
    assert aligned.codes[..., 0].tolist() == [[IGNORE, 5, 6, 7], [IGNORE, 8, 9, IGNORE]]
    assert aligned.pointers.tolist()[0] == [-1, 1, 1, 2]
    assert aligned.frames_in_token.tolist()[0] == [0, 0, 1, 0]
    assert aligned.advances.tolist() == [[2, 0, 1, 1], [1, 1, 2, IGNORE]]


def test_an_aligned_step_sees_its_neighbourhood_of_text(make_config):
    config = make_config(aligned=True)
    model = model_of(config)
    phonemes = torch.tensor([[2, 5, 6, 7, 8, 3]])
    prefix = model.prefix(phonemes, torch.tensor([6]), None)
    x = model.prefix.frame_context(prefix.context, torch.tensor([[-1, 0, 3, 5]]), torch.tensor([[0, 0, 9, 1]]))
    rows = torch.cat((torch.zeros(2, 32), model.prefix.text.weight[phonemes[0]], torch.zeros(2, 32)))
    for got, pointer, lasted in zip(x[0], (-1, 0, 3, 5), (0, 0, config.max_spent - 1, 1), strict=True):
        window = rows[pointer + 1 : pointer + 5].flatten()
        torch.testing.assert_close(got, model.prefix.context(window) + model.prefix.spent.weight[lasted])


def test_voice_dropout_hides_all_codes_of_an_utterance(make_config):
    model = ARModel(make_config(ti_dropout=0.5))
    phonemes, lengths, voices = torch.full((200, 2), 4), torch.full((200,), 2), torch.full((200, 2), 3)
    hidden = model.prefix(phonemes, lengths, None).x[0, :2]
    given = model.eval().prefix(phonemes, lengths, voices).x[:, :2]
    assert (given == given[0]).all()
    torch.manual_seed(0)
    dropped = model.train().prefix(phonemes, lengths, voices).x[:, :2]
    is_hidden, is_given = ((dropped == x).flatten(1).all(1) for x in (hidden, given[0]))
    assert (is_hidden ^ is_given).all()
    assert 70 < int(is_hidden.sum()) < 130


def test_advance_loss_is_finite_for_every_legal_target(make_config, make_batch):
    model, batch = ARModel(make_config(aligned=True)), make_batch((9, 7, 11, 5, 12, 3))
    steps = steps_of(model, batch)
    logits = model(batch.phonemes, batch.phoneme_lengths, steps, batch.time_invariant)
    loss = cross_entropy(logits.advances, steps.advances)
    assert torch.isfinite(loss)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_config_goes_through_json_and_refuses_nonsense(make_config):
    import json

    config = make_config(aligned=True)
    assert ARConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    of_an_earlier_version = config.to_dict() | {"code_dim": 8, "voice_dim": 32}
    assert ARConfig.from_dict(of_an_earlier_version) == config
    shapes: tuple[dict[str, Any], ...] = ({"dim": 30}, {"layers": 0}, {"group_size": 0}, {"time_invariant_size": 0})
    for changes in (*shapes, {"dropout": 1.0}, {"boundary_ids": (99,)}):
        with pytest.raises(UserError, match="config"):
            make_config(**changes)
    with pytest.raises(UserError, match="group_size must be 1"):
        make_config(aligned=True, group_size=2)
    with pytest.raises(UserError, match="wings"):
        ARConfig.from_dict(config.to_dict() | {"wings": 2})
