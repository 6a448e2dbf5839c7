"""Requests that enter and leave at any time, and what tells good speech from bad."""

from __future__ import annotations

import random

import pytest
import torch

from valle.common.errors import UserError
from valle.lm import ARModel, Decoder, Generated, NARConfig, NARModel, Request, Sampling, generate, refine
from valle.lm.precision import Fp16Linear, Int8Linear, for_steps
from valle.synthesis.ranking import find_fault, longest_loop

RANDOM = Sampling(temperature=1.5, top_p=0.95, max_frames=40, max_phone_frames=9, nar_temperature=1.0)


@pytest.fixture
def model(make_ar) -> ARModel:
    return make_ar(True)


@pytest.fixture
def requests(make_batch) -> list[Request]:
    """Twelve requests of different lengths, every other one with a prompt."""
    made = []
    for number in range(3):
        texts, prompts = make_batch((9, 7, 11, 5), seed=number), make_batch((6, 4, 5, 3), seed=10 + number)
        for row in range(4):
            text, voice = texts.phonemes[row, : texts.phoneme_lengths[row]], texts.time_invariant[row]
            seed = 4 * number + row
            if row % 2:
                made.append(Request(text, voice, seed=seed))
                continue
            length, frames = int(prompts.phoneme_lengths[row]), int(prompts.code_lengths[row])
            known, durations = prompts.codes[row, :, :frames], prompts.durations[row, :length]
            together = torch.cat((prompts.phonemes[row, :length], text))
            made.append(Request(together, voice, known, length, durations, seed))
    return made


HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
needs_fbgemm = pytest.mark.skipif(not HAS_FBGEMM, reason="torch has FBGEMM on x86 CPUs only")


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("fp16", marks=needs_fbgemm), "int8"])
def test_what_a_request_says_does_not_depend_on_who_comes_and_goes(model, requests, precision) -> None:
    stepper = for_steps(model, precision)
    alone = [generate(model, [request], RANDOM, stepper=stepper)[0] for request in requests]
    decoder, chance = Decoder(model, RANDOM, 4, stepper), random.Random(0)
    waiting, rows, sizes = list(requests), [], set()
    while waiting or decoder.rows:
        while waiting and decoder.free and (chance.random() < 0.5 or not decoder.rows):
            rows.append(decoder.enter(waiting.pop(0)))
        sizes.add(len(decoder.rows))
        decoder.step()
    assert sizes == {1, 2, 3, 4}
    for row, said in zip(rows, alone, strict=True):
        assert row.said is not None
        assert row.said.codes.tolist() == said.codes.tolist()
        assert row.said.durations.tolist() == said.durations.tolist()
        assert row.said.stop_reason == said.stop_reason


def test_a_cancelled_request_leaves_the_others_alone(model, requests) -> None:
    want = generate(model, requests[1:3], RANDOM)
    decoder = Decoder(model, RANDOM, 3)
    rows = [decoder.enter(request) for request in requests[:3]]
    for _ in range(3):
        decoder.step()
    early = decoder.so_far(rows[1])
    decoder.leave(rows[0])
    assert decoder.free == 1
    while decoder.rows:
        decoder.step()
    assert rows[0].said is None
    assert early.stop_reason == ""
    for row, said in zip(rows[1:], want, strict=True):
        assert row.said.codes.tolist() == said.codes.tolist()
    assert early.codes.tolist() == want[0].codes[:2].tolist()
    assert int(early.durations.sum()) == 2


def test_a_full_decoder_takes_nobody(model, requests) -> None:
    decoder = Decoder(model, RANDOM, 1)
    decoder.enter(requests[0])
    with pytest.raises(ValueError, match="in use"):
        decoder.enter(requests[1])


def test_a_step_never_waits_for_the_device(model, requests) -> None:
    """What needs a value of a tensor breaks the graph: then a GPU would have to be waited for in every step."""
    decoder = Decoder(model, RANDOM, 2)
    for request in requests[:2]:
        decoder.enter(request)
    decoder.step()
    visible = decoder.ar.make_room(2)
    with torch.inference_mode():
        torch.compile(decoder._advance, backend="eager", fullgraph=True)(2, visible)


def test_precisions_agree(model, requests) -> None:
    linear = torch.nn.Linear(64, 48)
    x = torch.randn(3, 64)
    torch.testing.assert_close(Int8Linear(linear)(x.bfloat16()).float(), linear(x), atol=0.05, rtol=0.05)
    assert for_steps(model, "fp32") is model
    greedy = Sampling(greedy=True, max_frames=4)
    full = generate(model, requests[:1], greedy)[0].codes[:4].tolist()
    assert full == generate(model, requests[:1], greedy, stepper=for_steps(model, "bf16"))[0].codes[:4].tolist()
    with pytest.raises(UserError, match="unknown precision 'fp4'"):
        for_steps(model, "fp4")


@needs_fbgemm
def test_fp16_weights_lose_next_to_nothing(model, requests) -> None:
    for bias in (False, True):
        linear, x = torch.nn.Linear(64, 48, bias), torch.randn(3, 2, 64)
        torch.testing.assert_close(Fp16Linear(linear)(x), linear(x), atol=1e-3, rtol=1e-3)
    greedy = Sampling(greedy=True, max_frames=8)
    fast = generate(model, requests[:1], greedy, stepper=for_steps(model, "fp16"))[0]
    assert fast.codes.tolist() == generate(model, requests[:1], greedy)[0].codes.tolist()


def test_completing_in_parts_keeps_what_is_known(make_config, requests) -> None:
    torch.manual_seed(0)
    config = make_config(aligned=True)
    ar, nar = ARModel(config).eval(), NARModel(NARConfig.from_dict(config.to_dict())).eval()
    (said,) = generate(ar, requests[:1], RANDOM)
    first = Generated(said.codes[:6], _cut(said.durations, 6), "", 6)
    (known,) = refine(nar, requests[:1], [first], RANDOM)
    (whole,) = refine(nar, requests[:1], [said], RANDOM, [known[:, :4]])
    assert torch.equal(whole[:, :4], known[:, :4])
    assert torch.equal(whole[0], said.codes)
    # To know all of it is to compute nothing.
    (again,) = refine(nar, requests[:1], [said], RANDOM, [whole])
    assert torch.equal(again, whole)


def _cut(durations: torch.Tensor, frames: int) -> torch.Tensor:
    ends = durations.cumsum(0).clamp(max=frames)
    return ends.diff(prepend=torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(
    ("codes", "longest"),
    [([1, 2, 3, 4, 5], 0), ([7] * 9, 8), ([1, 2, 3, 4] + [5, 6] * 5 + [9], 8), ([1, 1, 2, 2, 3, 3], 1), ([4], 0)],
)
def test_loops_are_measured(codes: list[int], longest: int) -> None:
    assert longest_loop(torch.tensor(codes), torch.ones(len(codes), dtype=torch.bool)) == longest


def test_a_pause_is_no_loop_but_a_stuck_sound_is() -> None:
    boundary = torch.zeros(12, dtype=torch.bool)
    boundary[2:4] = True
    request, sampling = Request(torch.tensor([2, 5, 6, 3])), Sampling(max_phone_frames=80, max_boundary_frames=100)

    def fault(durations: list[int], loop: int, reason: str = "end_of_text") -> str:
        durations, codes = torch.tensor(durations), torch.arange(sum(durations))
        codes[durations[:loop].sum() : durations[: loop + 1].sum()] = 7
        return find_fault(Generated(codes, durations, reason, len(codes)), request, boundary, sampling, 50.0)

    assert fault([60, 5, 5, 5], loop=0) == ""
    assert fault([5, 60, 5, 5], loop=1) == "repeats"
    assert fault([5, 5, 80, 5], loop=0) == "stuck"
    assert fault([100, 5, 5, 5], loop=1) == "stuck"
    assert fault([5, 1, 1, 5], loop=0, reason="max_length") == "max_length"


def test_rushed_speech_is_a_fault() -> None:
    request = Request(torch.tensor([2, *range(4, 12), 3]))
    boundary = torch.arange(12) < 4
    durations = torch.tensor([0, *[1] * 8, 0])
    said = Generated(torch.arange(8), durations, "end_of_text", 8)
    assert find_fault(said, request, boundary, Sampling(), 50.0) == "rushed"
    assert find_fault(said, request, boundary, Sampling(), 12.5) == ""
