from __future__ import annotations

import pytest
import torch

from valle.common.errors import UserError
from valle.data.batch import LMBatch
from valle.lm import FlowConfig, FlowModel, Generated, Request, Sampling, refine
from valle.lm.flow import UNKNOWN, flow_codes
from valle.lm.flow_task import FlowTask
from valle.tokenizers.codecs import build_codec, save_codec

CODEC = {
    "dim": 32,
    "hidden": 16,
    "encoder_layers": 2,
    "decoder_layers": (2, 1),
    "n_q": 3,
    "codebook_size": 20,
    "code_dim": 4,
    "time_invariant_groups": 2,
    "time_invariant_size": 5,
    "early_layers": 1,
}


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return build_codec("spectral", CODEC).eval()


@pytest.fixture
def model(make_config, codec) -> FlowModel:
    torch.manual_seed(0)
    model = FlowModel(make_config(FlowConfig, code_dim=4, voice_dim=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in (model.first, model.known, model.out):
            layer.weight.mul_(4)
    model.start_from_codec(codec)
    return model


def filled(model: FlowModel, batch: LMBatch, known: int, guidance: float = 1.0) -> torch.Tensor:
    assert batch.time_invariant is not None
    noise = torch.randn(batch.codes.shape[2] - known, 12, generator=torch.Generator().manual_seed(0))
    return flow_codes(model, batch.codes[0], known, batch.time_invariant[0], noise, 3, guidance)


def test_points_lead_back_to_their_codes(model, make_batch):
    """Where the codebooks span directions of their own, as trained ones do; else to sums that are near."""
    codes = make_batch((8, 6)).codes
    points = model.coordinates(codes)
    again = model.coordinates(model.nearest(points))
    assert (again - points).square().mean() < 0.5 * points.square().mean()
    model.points.copy_(torch.eye(12).view(3, 4, 12).repeat_interleave(5, dim=1) * torch.arange(1, 6).repeat(4)[:, None])
    assert torch.equal(model.nearest(model.coordinates(codes)), codes)


def test_what_is_to_be_found_is_not_looked_at(model, make_batch):
    known = 4
    before = filled(model, make_batch((8,)), known, guidance=2.0)
    assert torch.equal(before[:, :known], make_batch((8,)).codes[0, :, :known])
    seen = make_batch((8,))
    seen.codes[0, 1:, known:] = 0
    assert torch.equal(filled(model, seen, known, guidance=2.0), before)
    for quantizer, frame in ((0, 6), (0, 2), (1, 1), (2, 1)):
        other = make_batch((8,))
        other.codes[0, quantizer, frame] = (other.codes[0, quantizer, frame] + 1) % 20
        assert not torch.equal(filled(model, other, known, guidance=2.0)[:, known:], before[:, known:])


def test_padding_changes_nothing(model, make_batch):
    batch, g = make_batch((9, 4, 11)), torch.Generator().manual_seed(0)
    x, time = torch.randn(3, batch.codes.shape[2], 12, generator=g), torch.rand(3, generator=g)
    known = torch.arange(x.shape[1]) < torch.tensor([2, 0, 5])[:, None]
    hide = torch.tensor([False, True, False])

    def run(rows: slice, frames: int) -> torch.Tensor:
        codes, place = batch.codes[rows, :, :frames], (rows, slice(frames))
        voice = batch.time_invariant[rows], hide[rows]
        lengths = batch.code_lengths[rows]
        return model(x[place], time[rows], codes[:, 0], model.coordinates(codes), known[place], lengths, *voice)

    together = run(slice(3), x.shape[1])
    for row, frames in enumerate(batch.code_lengths.tolist()):
        alone = run(slice(row, row + 1), frames)
        torch.testing.assert_close(alone[0], together[row, :frames], atol=1e-5, rtol=1e-5)


def test_few_lengths_are_multiplied(model, make_batch):
    met = set()
    model.transformer.register_forward_pre_hook(lambda _, inputs: met.add(inputs[0].shape[1]))
    for frames in range(10, 80, 7):
        codes = torch.zeros(model.config.n_q, frames, dtype=torch.long)
        noise = torch.randn(frames - 5, model.noisy.in_features)
        flow_codes(model, codes, 5, None, noise, 1, 2.0)
    assert met == {64, 128}


def test_guidance_leads_away_from_nobodys_voice(model, make_batch):
    """At 0 it is the model without voice and known frames, at 1 the model as it is."""
    batch = make_batch((8,))
    nobody = filled(model, batch, 3, guidance=0.0)
    batch.time_invariant[:] = (batch.time_invariant + 1) % 5
    assert torch.equal(filled(model, batch, 3, guidance=0.0), nobody)
    assert not torch.equal(filled(model, batch, 3, guidance=1.0), nobody)


def test_a_request_depends_on_its_seed_and_on_nothing_beside_it(model, make_batch):
    batch = make_batch((8, 6, 9))
    requests = [
        Request(torch.tensor([2, 5]), batch.time_invariant[i], seed=i, voice_codes=batch.codes[i, :, : 3 + i])
        for i in range(3)
    ]
    said = [Generated(batch.codes[i, 0, 3 + i : int(n)], None, "eos", 1) for i, n in enumerate(batch.code_lengths)]
    sampling = Sampling(flow_steps=2)
    together = refine(model, requests, said, sampling)
    for index, codes in enumerate(together):
        assert codes.shape == (3, len(said[index].codes))
        assert torch.equal(refine(model, requests[index : index + 1], said[index : index + 1], sampling)[0], codes)
    requests[0].seed = 7
    assert not torch.equal(refine(model, requests[:1], said[:1], sampling)[0], together[0])
    # What was heard in a stream stays, and is context for what follows.
    known = together[0][:, :5]
    again = refine(model, requests[:1], said[:1], sampling, [known])[0]
    assert torch.equal(again[:, :5], known)
    assert torch.equal(refine(model, requests[:1], said[:1], sampling, together[:1])[0], together[0])


def invented_speech(rows: int = 16, frames: int = 12) -> LMBatch:
    """The phoneme (3 frames each) tells quantizer 1, that tells quantizer 2, and the voice quantizer 3."""
    phonemes = torch.randint(2, 12, (rows, frames // 3))
    voice = torch.randint(0, 5, (rows, 2))
    first = (phonemes * 7 % 20).repeat_interleave(3, dim=1)
    codes = torch.stack((first, (first * 7 + 3) % 20, (voice[:, :1] * 4).expand_as(first)), dim=1)
    lengths = torch.full((rows,), frames)
    return LMBatch(phonemes, lengths // 3, codes, lengths, voice, torch.full_like(phonemes, 3))


@pytest.mark.parametrize("aligned", [False, True])
def test_it_learns_what_the_codes_are_and_mends_wrong_ones(make_config, codec, tmp_path, aligned):
    """In speech never seen. Only who is told the phonemes can know that a first code is wrong."""
    torch.manual_seed(0)
    save_codec(codec, tmp_path)
    config = make_config(FlowConfig, code_dim=4, voice_dim=4, dim=64, ff=128, aligned=aligned)
    task = FlowTask(config, str(tmp_path), wrong_codes=0.6 if aligned else 0.0, max_prompt_frames=6)
    axes = torch.eye(12).view(3, 4, 12).repeat_interleave(5, dim=1)
    task.model.points.copy_(axes * torch.tensor([-1.5, -0.75, 0.75, 1.5, 2.25]).repeat(4)[:, None])
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = task.losses(invented_speech(), "train")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    batch, noise = invented_speech(), torch.randn(16, 12, 12)
    assert torch.equal(task.losses(batch, "val")["loss"], task.losses(batch, "val")["loss"])
    heard = batch.codes.clone()
    if aligned:
        heard[:, 0, 6:9] = (heard[:, 0, 6:9] + 9) % 20
    texts = zip(batch.phonemes, batch.durations, strict=True) if aligned else [()] * 16
    found = [
        flow_codes(task.model, heard[i], 0, batch.time_invariant[i], noise[i], 8, 1.0, *text)
        for i, text in enumerate(texts)
    ]
    right = (torch.stack(found) == batch.codes).float().mean(dim=(0, 2))
    assert right.min() > 0.8


def test_an_aligned_flow_reads_the_frames_it_makes(make_config, codec, make_batch):
    """What it is told of a stream's parts and of prompts adds up to the frames, whatever is known already."""
    torch.manual_seed(0)
    flow = FlowModel(make_config(FlowConfig, code_dim=4, voice_dim=4, aligned=True)).eval()
    flow.start_from_codec(codec)
    told = []
    flow.register_forward_pre_hook(lambda _, inputs: told.append((*inputs[8:10], inputs[5])))
    batch, sampling = make_batch((8,)), Sampling(flow_steps=1, flow_guidance=2.0)
    phonemes, durations = torch.tensor([5, 2, 6, 7]), torch.tensor([3, 0, 2, 4])
    said = Generated(torch.randint(0, 20, (9,)), durations, "end_of_text", 9)
    ti = batch.time_invariant[0]
    bare = Request(phonemes, ti, voice_codes=batch.codes[0])
    spoken = Request(
        torch.cat((torch.tensor([8, 9]), phonemes)),
        ti,
        batch.codes[0],
        2,
        torch.tensor([9, 12]),
        voice_codes=batch.codes[0],
    )
    for request, prompt in ((bare, [UNKNOWN]), (spoken, [8, 9])):
        whole = refine(flow, [request], [said], sampling)[0]
        assert whole.shape == (3, 9)
        refine(flow, [request], [said], sampling, [whole[:, :4]])
        for number, (tokens, lasts, lengths) in enumerate(told):
            # Every other time it is asked without voice and text.
            known = [UNKNOWN] * (len(prompt) + len(phonemes)) if number % 2 else prompt + phonemes.tolist()
            assert tokens[0].tolist() == known
            assert int(lasts.sum()) == int(lengths)
        # Of a part it hears the voice, what was said before, and what is new; without a voice only the new.
        assert [lasts[0, len(prompt) :].tolist() for _, lasts, _ in told[::2]] == [[3, 0, 2, 4]] * 4
        assert [lasts[0].tolist() for _, lasts, _ in told[5::2]] == [[0] * len(prompt) + [0, 0, 1, 4]] * 2
        told.clear()
    with pytest.raises(ValueError, match="a plain AR model does not give"):
        refine(flow, [bare], [Generated(said.codes, None, "eos", 9)], sampling)


def test_codecs_that_cannot_be_used_are_refused(make_config, codec):
    with pytest.raises(UserError, match="no flow"):
        FlowModel(make_config(FlowConfig, n_q=1))
    silent = build_codec("spectral", CODEC)
    silent.code_vectors = lambda: None  # type: ignore[method-assign]
    with pytest.raises(UserError, match="does not tell its code vectors"):
        FlowModel(make_config(FlowConfig)).start_from_codec(silent)
