"""Many texts at once, in parts, in takes: each must be what it would be alone and whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from valle.common.errors import UserError
from valle.lm import Sampling
from valle.synthesis.batch import Job
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.options import SynthesisOptions
from valle.synthesis.prompt import Voice
from valle.synthesis.utterance import CLAUSE_PAUSE, SENTENCE_PAUSE, Joiner, pause_after

Make = Callable[..., Any]
TEXT = "Good morning, all of you. How are you? It is late."


@pytest.fixture(scope="module")
def voice(cloner: VoiceCloner, recordings: Path) -> Voice:
    return cloner.make_voice(recordings / "1688-142285-0002.opus")


@pytest.fixture(scope="module")
def plain(make_bundle: Make) -> VoiceCloner:
    return VoiceCloner(make_bundle(aligned=False, n_q=2))


def test_utterances_do_not_disturb_each_other(cloner: VoiceCloner, voice: Voice) -> None:
    texts = [TEXT, "Yes.", "No, not today. Never.", "Perhaps."]
    alone = [cloner.clone(text, voice, seed=i, candidates=1) for i, text in enumerate(texts)]
    engine = cloner.engine(rows=3)
    utterances = [engine.submit(texts[0], voice, seed=0, candidates=1)]
    for i in (1, 2, 3):
        for _ in range(5):
            engine.step()
        utterances.append(engine.submit(texts[i], voice, seed=i, candidates=1, stream=i == 2))
    audio: dict[Any, list[torch.Tensor]] = {utterance: [] for utterance in utterances}
    while engine.busy:
        for utterance in engine.step():
            audio[utterance] += [chunk.wav for chunk in utterance.take_chunks()]
    for i, (utterance, want) in enumerate(zip(utterances, alone, strict=True)):
        assert torch.equal(torch.cat(utterance.codes, dim=1)[0], want.codes[0])
        if i != 2:  # the codes are streamed to another codec decoder, whose look-ahead is shorter
            assert torch.equal(torch.cat(audio[utterance]), want.wav)


def test_a_cancelled_utterance_gives_its_rows_back(cloner: VoiceCloner, voice: Voice) -> None:
    engine = cloner.engine(rows=2)
    long, short = engine.submit(TEXT * 5, voice), engine.submit("Yes.", voice, candidates=1)
    for _ in range(3):
        engine.step()
    engine.cancel(long)
    while engine.busy:
        engine.step()
    assert not long.done
    assert torch.equal(short.speech().wav, cloner.clone("Yes.", voice, candidates=1).wav)
    assert engine.decoder.free == 2


def test_a_voice_is_read_once_for_all_texts(make_bundle: Make, recordings: Path) -> None:
    def texts_of(cloner: VoiceCloner) -> list[torch.Tensor]:
        voice = cloner.make_voice(recordings / "1688-142285-0002.opus", "You don't mean that you thought me so silly.")
        whole = cloner.clone("Good morning. How are you?", voice).codes
        engine = cloner.engine(rows=3)
        utterances = [engine.submit(text, voice, candidates=1) for text in ("Yes.", "Good evening.")]
        while engine.busy:
            engine.step()
        return [whole, *(torch.cat(utterance.codes, dim=1) for utterance in utterances)]

    bundle, lengths = make_bundle(aligned=False, reusable_prompt=True), []
    want = texts_of(VoiceCloner(bundle))
    bundle.ar.transformer.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    cloner = VoiceCloner(bundle)
    for got, codes in zip(texts_of(cloner), want, strict=True):
        assert torch.equal(got, codes)
    # Read are the prompt and four sentences, two of them four times; shorter passes are steps.
    prompt, *texts = [length for length in lengths if length > 1]
    assert len(texts) == 4
    assert prompt > 2 * max(texts)


@pytest.mark.parametrize(
    "kind", [{}, {"aligned": False}, {"aligned": False, "group_size": 3}, {"reusable_prompt": True}]
)
def test_a_stream_says_what_a_clone_says(make_bundle: Make, recordings: Path, kind: dict[str, Any]) -> None:
    bundle = make_bundle(**kind)
    bundle.refiner = None  # with it, quantizers beyond the first may differ where a chunk ends
    cloner = VoiceCloner(bundle)
    # The gain of what is heard before it is complete cannot be that of the whole.
    voice = replace(cloner.make_voice(recordings / "1688-142285-0002.opus"), loudness=None)
    text = "Good morning, all of you who have come such a long way. How are you?"
    # Longer than one chunk and its look-ahead, or there is nothing to stream.
    sampling = Sampling(max_phone_frames=9, max_boundary_frames=9, min_frames_per_token=3.0, max_frames_per_token=6.0)
    whole = cloner.clone(text, voice, sampling=sampling, candidates=1)
    chunks = list(cloner.stream(text, voice, sampling=sampling))
    wav = torch.cat([chunk.wav for chunk in chunks])
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    outcome = chunks[-1].outcome
    assert outcome is not None
    assert wav.shape == whole.wav.shape
    assert outcome.seconds == pytest.approx(whole.seconds) == pytest.approx(wav.shape[0] / 16000)
    assert (outcome.stop_reason, outcome.seed, outcome.retries) == (whole.stop_reason, 0, whole.retries)
    assert len(chunks) > 4
    assert len(chunks[0].wav) < 16000 * 0.5
    error = (wav - whole.wav).square().mean() / whole.wav.square().mean()
    assert error < 1e-4


def test_a_stream_completes_all_quantizers(cloner: VoiceCloner, voice: Voice) -> None:
    engine = cloner.engine(Sampling(max_phone_frames=9, max_boundary_frames=9, min_frames_per_token=3.0))
    utterance = engine.submit("Good morning, all of you who have come such a long way.", voice, stream=True)
    chunks = 0
    while engine.busy:
        engine.step()
        chunks += len(utterance.take_chunks())
    assert chunks > 3
    (codes,) = utterance.codes
    assert codes.shape[0] == cloner.bundle.codec.spec.n_q
    assert codes[1].unique().numel() > 1


def test_closing_a_stream_stops_the_work(cloner: VoiceCloner, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr("valle.synthesis.engine.Engine._fill", _counting(steps))
    stream = cloner.stream("One, two, three, four, five, six, seven. " * 20, voice)
    next(stream)
    stream.close()
    seen = len(steps)
    assert seen > 0
    assert next(stream, None) is None
    assert len(steps) == seen


def _counting(steps: list[int]) -> Callable[..., None]:
    from valle.synthesis.engine import Engine

    original = Engine._fill

    def fill(self: Engine) -> None:
        steps.append(1)
        original(self)

    return fill


def test_faulty_candidates_are_spoken_again_and_reported(plain: VoiceCloner, recordings: Path) -> None:
    text, prompt = "Good morning.", recordings / "1688-142285-0002.opus"
    never_ends = Sampling(max_frames=12, min_frames_per_token=3.0)
    said = plain.clone(text, prompt, sampling=never_ends, candidates=1, retries=3)
    assert said.retries == 3
    assert said.stop_reason == "max_length"
    assert any("did not come to an end" in note for note in said.notes)
    once = plain.clone(text, prompt, sampling=never_ends, candidates=1, retries=0)
    assert once.retries == 0
    assert once.codes.shape == said.codes.shape  # all candidates were cut off: the best of them by the model's own ear


def test_a_stream_goes_on_with_the_candidate_that_was_heard(plain: VoiceCloner, voice: Voice) -> None:
    """Also where one before it, which nobody heard, was as faulty."""
    text, hop, second_candidates = "Would you rather walk in the rain, or wait until it stops?", 320, 0
    for seed in range(8):
        engine, chunks = plain.engine(sampling=Sampling(min_frames_per_token=0.1)), []
        utterance = engine.submit(text, voice, seed=seed, stream=True)
        while engine.busy:
            for ready in engine.step():
                chunks += ready.take_chunks()
        assert sum(len(chunk.wav) for chunk in chunks) == hop * utterance.codes[0].shape[1]
        outcome = chunks[-1].outcome
        second_candidates += len(chunks) > 2 and outcome.retries > 0 and "too fast" in outcome.notes[-1]
    assert second_candidates > 0


def test_nothing_lasts_long_where_it_is_heard_at_once(cloner: VoiceCloner, voice: Voice) -> None:
    sampling = Sampling(max_phone_frames=40, max_boundary_frames=40, live_phone_frames=3, live_boundary_frames=2)
    longest = {}
    for stream in (False, True):
        engine = cloner.engine(sampling)
        engine.submit("Good morning, all of you.", voice, candidates=1, retries=0, stream=stream)
        engine.step()
        (row,) = engine.decoder.rows
        while engine.busy:
            engine.step()
        assert row.said is not None and row.said.durations is not None
        longest[stream] = int(row.said.durations.max())
    assert longest[True] <= 3 < longest[False]


def test_the_scorer_chooses_among_candidates(cloner: VoiceCloner, voice: Voice) -> None:
    asked: list[list[torch.Tensor]] = []

    def loudness(wav: torch.Tensor) -> float:
        return float(wav.square().mean())

    def loudest(text: str, voice: Voice, wavs: Sequence[torch.Tensor], rate: int) -> list[float]:
        asked.append(list(wavs))
        return [loudness(wav) for wav in wavs]

    voice = replace(voice, loudness=None)
    best = cloner.clone("Good morning, all of you.", voice, candidates=5, scorer=loudest, retries=0)
    (wavs,) = asked
    assert len(wavs) == 5
    assert len({loudness(wav) for wav in wavs}) > 1
    assert torch.equal(best.wav[160:-160], max(wavs, key=loudness)[160:-160])
    assert best.retries == 0


@pytest.mark.parametrize("options", [{"candidates": 0}, {"candidates": 101}, {"retries": -1}])
def test_candidates_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="n-best"):
        SynthesisOptions(**options)


def test_jobs_are_what_they_are_alone(cloner: VoiceCloner, recordings: Path) -> None:
    from valle.synthesis.batch import speak_jobs

    prompts = [recordings / "1688-142285-0002.opus", recordings / "3331-159605-0007.opus"]
    jobs = [Job(f"job{i}", prompts[i % 2], "", "One. Two is more." if i % 3 else "Three.") for i in range(6)]
    jobs.insert(2, Job("empty", prompts[0], "", "***"))
    jobs.insert(3, Job("missing", recordings / "missing.wav", "", "Four."))
    results = {
        job.id: speech for job, speech in speak_jobs(cloner, jobs, SynthesisOptions(seed=4, candidates=1), rows=3)
    }
    assert len(results) == 8
    assert "nothing to say" in str(results.pop("empty"))
    assert "not found" in str(results.pop("missing"))
    for job in jobs:
        if job.id in results:
            speech = results[job.id]
            assert not isinstance(speech, UserError)
            assert torch.equal(speech.wav, cloner.clone(job.text, job.prompt, seed=4, candidates=1).wav)


def test_requests_leave_nothing_behind(cloner: VoiceCloner, voice: Voice) -> None:
    def tensors_after(requests: int) -> int:
        engine = cloner.engine(rows=2)
        for seed in range(requests):
            utterance = engine.submit("Yes.", voice, seed=seed, candidates=1)
            while engine.busy:
                engine.step()
            utterance.take_chunks()
        del utterance
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    assert tensors_after(3) == tensors_after(12)


@pytest.mark.parametrize("sizes", [[1000], [1, 5, 200, 3, 791], [100] * 10])
def test_joining_does_not_depend_on_the_parts(sizes: list[int]) -> None:
    wav, joiner = torch.rand(1000) + 1, Joiner(16000)
    joined = torch.cat([*(joiner.add(part) for part in wav.split(sizes)), joiner.end(0.01), joiner.add(wav)])
    assert joined.shape[0] == 1000 + 160 + 1000 - 160
    torch.testing.assert_close(joined[160:840], wav[160:840])
    torch.testing.assert_close(joined[840:1000], wav[840:] * torch.linspace(1, 0, 160))
    assert not joined[1000:1160].any()
    torch.testing.assert_close(joined[1160:1320], wav[:160] * torch.linspace(0, 1, 160))


def test_a_piece_shorter_than_a_fade_is_no_trouble() -> None:
    joiner = Joiner(16000)
    assert torch.cat((joiner.add(torch.ones(10)), joiner.end(), joiner.end())).shape == (10,)


def test_pauses_follow_the_punctuation() -> None:
    assert pause_after('He said: "No."') == SENTENCE_PAUSE
    assert pause_after("which is why,") == CLAUSE_PAUSE
