from __future__ import annotations

import pytest
import torch

from valle.lm import ARConfig, ARModel, NARConfig, NARModel, Request, Sampling, generate, refine
from valle.lm.ar import Prompts
from valle.lm.ar_step import ARStepper
from valle.lm.task import cross_entropy

GREEDY = Sampling(greedy=True, max_frames=60)
RANDOM = Sampling(temperature=1.5, top_p=0.95, max_frames=40, nar_temperature=1.0)


def shaken(model: torch.nn.Module, by: float = 0.15) -> torch.nn.Module:
    """Weights large enough that what is said depends on everything."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def requests(make_batch) -> list[Request]:
    """Texts and prompts of different lengths, one without a prompt."""
    texts, prompts = make_batch((9, 7, 11, 5), seed=1), make_batch((6, 4, 5, 3), seed=2)
    made = []
    for row in range(4):
        text = texts.phonemes[row, : texts.phoneme_lengths[row]]
        if row == 1:
            made.append(Request(text, texts.time_invariant[row], seed=row))
            continue
        length, frames = int(prompts.phoneme_lengths[row]), int(prompts.code_lengths[row])
        made.append(
            Request(
                torch.cat((prompts.phonemes[row, :length], text)),
                texts.time_invariant[row],
                prompts.codes[row, :, :frames],
                length,
                prompts.durations[row, :length],
                seed=row,
            )
        )
    return made


def test_cached_steps_equal_the_whole_pass(make_config, make_batch, kind):
    torch.manual_seed(0)
    model = shaken(ARModel(make_config(**kind)))
    batch, group, aligned = make_batch((9, 7, 11)), model.config.group_size, model.config.aligned
    known_tokens = torch.tensor([3, 0, 4])
    known = torch.stack([d[:n].sum() for d, n in zip(batch.durations, known_tokens, strict=True)]) // group * group
    steps = model.steps(batch.phoneme_lengths, batch.codes[:, 0], batch.code_lengths, batch.durations)
    with torch.inference_mode():
        prompts = Prompts(known_tokens, known // group)
        whole = model(batch.phonemes, batch.phoneme_lengths, steps, batch.time_invariant, prompts)
        # The known frames go in as a prompt, the others one by one; each row stands at its own time.
        cached, first = ARStepper(model, 3), []
        for row, tokens in enumerate(known_tokens.tolist()):
            request = Request(
                batch.phonemes[row, : batch.phoneme_lengths[row]],
                batch.time_invariant[row],
                batch.codes[row, :, : known[row]] if tokens else None,
                tokens,
                batch.durations[row, :tokens] if tokens and aligned else None,
            )
            first.append(cached.enter(row, request).previous[0, -1])
        rows = torch.arange(3)
        for ahead in range(12):
            at = (known // group + ahead).clamp(max=steps.previous.shape[1] - 1)
            place = (steps.pointers[rows, at], steps.frames_in_token[rows, at]) if aligned else (None, None)
            visible = cached.make_room(3)
            logits = cached.step(steps.previous[rows, at] if ahead else torch.stack(first), *place, visible)
            real = known + ahead * group <= batch.code_lengths
            torch.testing.assert_close(logits.codes[real], whole.codes[rows, at][real], atol=1e-4, rtol=1e-4)
            if aligned:
                torch.testing.assert_close(logits.advances[real], whole.advances[rows, at][real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, RANDOM], ids=["greedy", "random"])
def test_a_batch_says_what_each_says_alone(make_config, requests, kind, sampling):
    torch.manual_seed(0)
    config = make_config(**kind)
    ar, nar = shaken(ARModel(config)), shaken(NARModel(NARConfig.from_dict(config.to_dict())))
    together = generate(ar, requests, sampling)
    filled = refine(nar, requests, together, sampling)
    assert len({len(g.codes) for g in together}) > 1
    for request, whole, codes in zip(requests, together, filled, strict=True):
        (alone,) = generate(ar, [request], sampling)
        assert alone.codes.tolist() == whole.codes.tolist()
        assert (alone.stop_reason, alone.steps) == (whole.stop_reason, whole.steps)
        assert config.aligned == (alone.durations is not None)
        assert not config.aligned or alone.durations.tolist() == whole.durations.tolist()
        (codes_alone,) = refine(nar, [request], [alone], sampling)
        assert codes_alone.tolist() == codes.tolist()
        assert codes[0].tolist() == whole.codes.tolist()


def test_seeds_decide(make_config, requests):
    torch.manual_seed(0)
    model = shaken(ARModel(make_config(aligned=True)))
    request = requests[0]
    said = [generate(model, [request], RANDOM)[0].codes.tolist()]
    torch.manual_seed(1)
    said.append(generate(model, [request], RANDOM)[0].codes.tolist())
    request.seed = 99
    said.append(generate(model, [request], RANDOM)[0].codes.tolist())
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_advance", [1, 2])
def test_an_aligned_model_speaks_every_phoneme_once_and_ends(make_config, requests, seed, max_advance):
    """Whatever the weights are."""
    torch.manual_seed(seed)
    config = make_config(aligned=True, max_advance=max_advance)
    model = shaken(ARModel(config), 0.5)
    sampling = Sampling(max_phone_frames=6, max_boundary_frames=9)
    ticks: list[int] = []
    for request, said in zip(requests, generate(model, requests, sampling, ticks.append), strict=True):
        new = request.phonemes[request.prompt_phonemes :]
        boundary = torch.isin(new, torch.tensor(config.boundary_ids))
        assert said.stop_reason == "end_of_text"
        assert len(said.durations) == len(new)
        assert int(said.durations.sum()) == len(said.codes) == said.steps
        assert (said.durations[~boundary] >= 1).all()
        assert (said.durations[~boundary] <= 6).all()
        assert (said.durations[boundary] <= 9).all()
    assert ticks == list(range(1, len(ticks) + 1))


def test_the_longest_speech_is_cut_and_says_so(make_config, requests):
    torch.manual_seed(0)
    sampling = Sampling(max_frames=3, min_frames_per_token=1.0)
    for kind in ({}, {"group_size": 2}, {"aligned": True}):
        said = generate(shaken(ARModel(make_config(**kind))), requests, sampling)
        assert [(g.stop_reason, len(g.codes)) for g in said] == [("max_length", 3)] * 4


def test_a_plain_model_respects_its_least_and_greatest_length(make_config, requests):
    torch.manual_seed(0)
    model = shaken(ARModel(make_config()))
    with torch.no_grad():
        model.code_head.weight[model.eos] = 0
    eager = Sampling(temperature=100.0, min_frames_per_token=2.0, max_frames_per_token=3.0)
    for request, said in zip(requests, generate(model, requests, eager), strict=True):
        tokens = len(request.phonemes) - request.prompt_phonemes
        assert 2 * tokens <= len(said.codes) <= 3 * tokens
        assert (said.codes < model.eos).all()


def test_a_trained_model_repeats_what_it_learned(make_config, make_batch, kind):
    torch.manual_seed(0)
    config: ARConfig = make_config(**kind)
    model, batch = ARModel(config), make_batch((9, 7, 11))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    steps = model.steps(batch.phoneme_lengths, batch.codes[:, 0], batch.code_lengths, batch.durations)
    starts = batch.durations[:, :5].sum(dim=1) // config.group_size
    for step in range(200):
        prompts = Prompts(torch.full_like(starts, 5), starts) if step % 2 else None
        logits = model(batch.phonemes, batch.phoneme_lengths, steps, batch.time_invariant, prompts)
        loss = cross_entropy(logits.codes, steps.codes)
        if logits.advances is not None:
            loss = loss + cross_entropy(logits.advances, steps.advances)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    asked, want = [], []
    for row, (length, frames) in enumerate(
        zip(batch.phoneme_lengths.tolist(), batch.code_lengths.tolist(), strict=True)
    ):
        text, voice = batch.phonemes[row, :length], batch.time_invariant[row]
        # Once from the text alone, once going on from its first five tokens.
        start = int(batch.durations[row, :5].sum())
        start -= start % config.group_size  # the groups that it learned begin with the speech
        durations = batch.durations[row, :5] if config.aligned else None
        asked += [Request(text, voice), Request(text, voice, batch.codes[row, :, :start], 5, durations)]
        want += [batch.codes[row, 0, :frames], batch.codes[row, 0, start:frames]]
    for said, codes in zip(generate(model.eval(), asked, GREEDY), want, strict=True):
        assert said.codes.tolist() == codes.tolist()
        assert said.stop_reason == ("end_of_text" if config.aligned else "eos")


def test_groups_end_with_the_prompt(make_config, requests):
    """Frames at its beginning that fill no group are as if they were not there."""
    torch.manual_seed(0)
    model, request = shaken(ARModel(make_config(group_size=3))), requests[0]
    request.prompt_durations = None
    said = []
    prompt = request.prompt_codes[:, :7]
    for codes in (prompt, prompt[:, 1:], prompt[:, :6]):
        assert codes.shape[1] in (6, 7)
        request.prompt_codes = codes
        said.append(generate(model, [request], GREEDY)[0].codes.tolist())
    assert said[0] == said[1] != said[2]


def test_malformed_requests_are_refused():
    text = torch.tensor([2, 5, 6, 3])
    for options in (
        {"prompt_phonemes": 2},
        {"prompt_codes": torch.zeros(3, 4, dtype=torch.long)},
        {"prompt_phonemes": 4, "prompt_codes": torch.zeros(3, 4, dtype=torch.long)},
        {
            "prompt_phonemes": 2,
            "prompt_codes": torch.zeros(3, 4, dtype=torch.long),
            "prompt_durations": torch.tensor([1, 2]),
        },
    ):
        with pytest.raises(ValueError, match="prompt"):
            Request(text, **options)
