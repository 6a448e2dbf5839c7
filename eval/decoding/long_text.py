"""Whether a long text ends in the voice, and in the memory, in which it began."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from valle.bench.memory import kept_bytes
from valle.common.errors import UserError
from valle.eval.decoding.findings import Finding
from valle.eval.lists import Recording
from valle.eval.similarity import SpeakerModel, Voice, embed_all, likeness
from valle.eval.stats import estimate
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.result import SpeechChunk

CHARACTERS_A_MINUTE = 2000
"""More than the fastest speaker says."""
DRIFT = 0.03
"""The last minute may be so much more or less like the prompt than the first."""
GROWTH_MB = 32
"""So much more memory may be in use at the end than halfway, when every length of sentence has been met."""


def check_long_text(
    cloner: VoiceCloner,
    speaker_model: SpeakerModel,
    prompts: Sequence[Recording],
    sentences: Sequence[str],
    minutes: int,
    seed: int = 0,
) -> list[Finding]:
    """Let each voice say one text of so many minutes, the sentences over and over, and compare its minutes.

    Each minute is listened to and forgotten before the next, as a player would.
    """
    rounds = -(-minutes * CHARACTERS_A_MINUTE // sum(map(len, sentences)))
    text = " ".join([*sentences] * rounds)
    changes, ends, growths, since_first = [], [], [], []
    for prompt in prompts:
        voice = cloner.make_voice(prompt.path)
        (own,) = embed_all(speaker_model, [voice.prompt.wav], voice.prompt.sample_rate)
        heard: list[Voice] = []
        memory = [kept_bytes()]
        for wav in whole_minutes(cloner.stream(text, voice, seed=seed), cloner.sample_rate, minutes):
            heard += embed_all(speaker_model, [wav], cloner.sample_rate)
            memory.append(kept_bytes())
        growths.append((memory[-1] - memory[minutes // 2]) / 1e6)
        since_first.append((memory[-1] - memory[1]) / 1e6)
        changes.append(voice_change(own, heard))
        ends.append(likeness(heard[0], heard[-1]).value)
    change, growth = estimate(changes, seed=seed), max(growths)
    return [
        Finding(
            "likeness to the prompt, last minute minus first", change, f"within {DRIFT}", abs(change.value) <= DRIFT
        ),
        Finding("likeness of the last minute to the first", estimate(ends, seed=seed)),
        Finding("memory at the end minus halfway, MB", growth, f"at most {GROWTH_MB}", growth <= GROWTH_MB),
        Finding("memory at the end minus after the first minute, MB", max(since_first)),
    ]


def voice_change(own: Voice, heard: Sequence[Voice]) -> float | None:
    """How much more alike to `own` the last voice of `heard` is than the first; None where one has no voice."""
    first, last = likeness(own, heard[0]).value, likeness(own, heard[-1]).value
    return None if first is None or last is None else last - first


def whole_minutes(chunks: Iterable[SpeechChunk], sample_rate: int, minutes: int) -> Iterator[Tensor]:
    """The first `minutes` of a stream, [60 * sample_rate] each. Raises `UserError` if it is over before."""
    size, given, waiting = 60 * sample_rate, 0, torch.zeros(0)
    for chunk in chunks:
        waiting = torch.cat((waiting, chunk.wav))
        while len(waiting) >= size:
            yield waiting[:size]
            waiting, given = waiting[size:], given + 1
            if given == minutes:
                return
    raise UserError(f"the text was over within minute {given + 1} of {minutes}; lower --minutes")
