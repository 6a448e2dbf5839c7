"""What was read is not read again: the prompt of a voice, and the text of a sentence that is said again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from valle.lm import ARModel, Decoder, Request, Sampling
from valle.lm.kv_cache import Prefills

RANDOM = Sampling(temperature=1.5, top_p=0.95, max_frames=40, max_phone_frames=9)
KINDS = [{}, {"group_size": 3}, {"aligned": True}]
NAMES = ["plain", "grouped", "aligned"]


@pytest.fixture
def requests(make_batch) -> list[Request]:
    """One prompt before three texts."""
    texts, prompts = make_batch((9, 7, 11), seed=1), make_batch((6,), seed=2)
    frames = int(prompts.code_lengths[0])
    return [
        Request(
            torch.cat((prompts.phonemes[0], texts.phonemes[row, : texts.phoneme_lengths[row]])),
            prompts.time_invariant[0],
            prompts.codes[0, :, :frames],
            6,
            prompts.durations[0],
            seed=row,
        )
        for row in range(3)
    ]


def count_reading(model: ARModel) -> list[int]:
    """Will hold the lengths of the model's passes over more than one position."""
    lengths: list[int] = []

    def note(module, args, output) -> None:
        if output.shape[1] > 1:
            lengths.append(output.shape[1])

    model.transformer.register_forward_hook(note)
    return lengths


def speak(decoder: Decoder, request: Request) -> list[int]:
    row = decoder.enter(request)
    while row.said is None:
        decoder.step()
    return row.said.codes.tolist()


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_reusable_prompt_is_read_once(make_config, make_model, requests, kind):
    model = make_model(make_config(**kind, reusable_prompt=True))
    alone = [speak(Decoder(model, RANDOM, 1), request) for request in requests]
    assert len({tuple(codes) for codes in alone}) == 3
    prefills, lengths = Prefills.beside(model), count_reading(model)
    # A decoder for each text, as in a program that clones one text after another.
    assert [speak(Decoder(model, RANDOM, 2, prefills=prefills), request) for request in requests] == alone
    frames, group = requests[0].prompt_frames, model.config.group_size
    assert lengths == [2 + 6 + frames // group, *(len(request.phonemes) - 6 for request in requests)]


@pytest.mark.parametrize("reusable", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_sentence_is_read_once_for_all_its_takes(make_config, make_model, requests, kind, reusable):
    model = make_model(make_config(**kind, reusable_prompt=reusable))
    takes = [replace(requests[0], seed=seed) for seed in range(3)]
    alone = [speak(Decoder(model, RANDOM, 1), take) for take in takes]
    assert len({tuple(codes) for codes in alone}) > 1
    decoder, lengths = Decoder(model, RANDOM, 2), count_reading(model)
    assert [speak(decoder, take) for take in takes] == alone
    assert len(lengths) == 1 + reusable


@pytest.mark.parametrize("reusable", [False, True])
def test_nothing_else_is_taken_for_the_same(make_config, make_model, requests, reusable):
    model = make_model(make_config(aligned=True, reusable_prompt=reusable))
    first, codes = requests[0], requests[0].prompt_codes
    durations = first.prompt_durations.clone()
    longest = int(durations.argmax())
    durations[longest] -= 1
    durations[longest - 1] += 1
    phonemes = first.phonemes.clone()
    phonemes[1] = 4 + (phonemes[1] + 1) % 8
    others = [
        first,
        replace(first, prompt_codes=(codes + 1) % 20),
        replace(first, prompt_durations=durations),
        replace(first, phonemes=phonemes),
        replace(first, time_invariant=(first.time_invariant + 1) % 5),
        replace(first, time_invariant=None),
        Request(first.phonemes, first.time_invariant),
    ]
    prefills = Prefills.beside(model)
    for request in others:
        assert speak(Decoder(model, RANDOM, 1, prefills=prefills), request) == speak(Decoder(model, RANDOM, 1), request)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_without_a_prompt_nothing_differs(make_config, make_model, requests, kind):
    said = []
    for reusable in (False, True):
        model = make_model(make_config(**kind, reusable_prompt=reusable))
        bare = [Request(r.phonemes, r.time_invariant, seed=r.seed) for r in requests]
        said.append([speak(Decoder(model, RANDOM, 1), request) for request in (*bare, *requests)])
    assert said[0][:3] == said[1][:3]
    assert said[0][3:] != said[1][3:]


def test_what_was_not_used_for_longest_is_forgotten():
    def prefill(positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(2, 1, positions, 4), torch.zeros(2, 1, positions, 4)

    prefills = Prefills(limit=10 * 64)
    prefills.put("a", prefill(4))
    prefills.put("b", prefill(4))
    assert prefills.get("a") is not None
    prefills.put("c", prefill(4))
    assert prefills.size == 8 * 64
    assert [prefills.get(name) is not None for name in "abc"] == [True, False, True]
    prefills.put("d", prefill(11))
    assert [prefills.get(name) is not None for name in "acd"] == [True, True, False]
    prefills.put("a", prefill(4))
    assert prefills.size == 8 * 64
