"""Steps that are replayed must be the steps that would have been taken."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from valle.lm import Decoder, Generated, Request, Sampling, generate
from valle.lm.graphs import Recorder, StepGraphs, Work, cuda_recorders
from valle.lm.kv_cache import PAGE
from valle.lm.precision import for_steps

SAMPLING = Sampling(temperature=1.5, top_p=0.95, max_frames=30, max_phone_frames=9)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on any device: operations on fixed tensors, with all that Python decided fixed in them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # neither in place nor a view
                    old.copy_(new)


def tapes(tensors: Callable[[], Sequence[Tensor]]) -> Callable[[], Recorder]:
    """Recorders of tapes of work that changes `tensors()`."""

    def record(work: Work) -> Work:
        before = [tensor.clone() for tensor in tensors()]
        with Tape() as tape:
            work()
        for tensor, value in zip(tensors(), before, strict=True):  # recording is not doing
            tensor.copy_(value)
        return tape.replay

    return lambda: record


@pytest.fixture
def requests(make_batch) -> list[Request]:
    """Short ones, and in their middle one for which all tensors must grow."""
    short, prompts = make_batch((9, 7, 11, 5)), make_batch((100,), seed=1)
    made = [
        Request(short.phonemes[row, : short.phoneme_lengths[row]], short.time_invariant[row], seed=row)
        for row in range(4)
    ]
    text = torch.cat((prompts.phonemes[0], made[0].phonemes))
    long = Request(text, made[0].time_invariant, prompts.codes[0], 100, prompts.durations[0], seed=4)
    assert long.prompt_frames + len(text) > PAGE
    return [*made[:2], long, *made[2:]]


def speak(decoder: Decoder, requests: list[Request]) -> list[Generated]:
    """They come and go at random, three at a time at most."""
    waiting, rows, chance = list(requests), [], random.Random(0)
    while waiting or decoder.rows:
        while waiting and decoder.free and (chance.random() < 0.2 or not decoder.rows):
            rows.append(decoder.enter(waiting.pop(0)))
        decoder.step()
    return [row.said for row in rows]


def assert_same(said: list[Generated], want: list[Generated]) -> None:
    for one, other in zip(said, want, strict=True):
        assert one.codes.tolist() == other.codes.tolist()
        assert one.stop_reason == other.stop_reason
        assert one.durations is None or one.durations.tolist() == other.durations.tolist()


@pytest.mark.parametrize("aligned", [False, True])
def test_replayed_steps_say_the_same(make_ar, requests, aligned: bool) -> None:
    model = make_ar(aligned)
    stepper = for_steps(model, "bf16")
    decoder = Decoder(model, SAMPLING, 3, stepper)
    decoder.graphs = StepGraphs(tapes(lambda: (*decoder.ar.tensors, *decoder._state.tensors)))
    assert_same(speak(decoder, requests), [generate(model, [r], SAMPLING, stepper=stepper)[0] for r in requests])
    assert decoder.graphs.replays > decoder.steps / 2


def test_other_tensors_and_other_work_are_recorded_again() -> None:
    total, recordings = torch.zeros(2), []

    def add(value: float) -> None:
        total.add_(value)

    record = tapes(lambda: [total])()
    graphs = StepGraphs(lambda: lambda work: recordings.append(work) or record(work))
    for _ in range(4):
        graphs.run("one", (total,), lambda: add(1.0))
        graphs.run("ten", (total,), lambda: add(10.0))
    assert (total.tolist(), len(recordings), graphs.replays) == ([44.0, 44.0], 2, 6)
    old, total = total, torch.zeros(3)
    for _ in range(4):
        graphs.run("one", (total,), lambda: add(1.0))
    assert (total.tolist(), old.tolist(), len(recordings)) == ([4.0] * 3, [44.0, 44.0], 3)


def test_where_recording_fails_steps_are_taken_plainly(make_ar, requests, caplog) -> None:
    attempts = []

    def fail(work: Work) -> Work:
        attempts.append(work)
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    model = make_ar(aligned=True)
    want = generate(model, requests[:2], SAMPLING)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            decoder = Decoder(model, SAMPLING, 2)
            decoder.graphs = StepGraphs(lambda: fail)
            rows = [decoder.enter(request) for request in requests[:2]]
            while decoder.rows:
                decoder.step()
            assert_same([row.said for row in rows], want)
    assert len(attempts) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["no CUDA graphs, so speaking takes longer: operation not permitted when stream is capturing"]


def test_only_cuda_has_graphs(make_ar) -> None:
    assert Decoder(make_ar(aligned=False), SAMPLING).graphs.recorders is None


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("aligned", [False, True])
def test_cuda_graphs_say_what_plain_steps_say(make_ar, requests, aligned: bool, precision: str) -> None:
    model = make_ar(aligned).cuda()
    stepper = for_steps(model, precision)
    plain, graphs = (Decoder(model, SAMPLING, 3, stepper) for _ in range(2))
    plain.graphs = StepGraphs(None)
    assert_same(speak(graphs, requests), speak(plain, requests))
    assert graphs.graphs.replays > graphs.steps / 2
    assert plain.graphs.replays == 0


@needs_cuda
def test_work_that_cuda_cannot_record_is_done_plainly(caplog) -> None:
    total = torch.zeros(1, device="cuda")
    graphs, stream = StepGraphs(cuda_recorders(total.device)), torch.cuda.current_stream()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            graphs.run(0, (total,), lambda: total.add_(1.0 + 0 * total.item()))
    assert total.item() == 4.0
    assert graphs.replays == 0
    assert len(caplog.records) == 1
    assert torch.cuda.current_stream() == stream
