"""Whether a process that speaks again and again keeps anything of it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from tqdm import tqdm

from valle.bench.memory import kept_bytes
from valle.eval.decoding.findings import Finding
from valle.eval.trials import Trial
from valle.synthesis.cloner import VoiceCloner

GROWTH_MB = 16
"""So much more memory may be in use after all requests than after the first three tenths of them."""


def check_memory(cloner: VoiceCloner, trials: Sequence[Trial], requests: int, seed: int = 0) -> list[Finding]:
    """Ask so many times, `trials` over and over: as a whole, streamed, and streamed until the first sound."""
    begin = before = tensors = 0
    for number in tqdm(range(requests), desc="memory", disable=None, leave=False):
        # Of a thousand, the first 300 say each of the 100 sentences in each of the three ways.
        if number == 3 * requests // 10:
            begin, before, tensors = number, kept_bytes(), live_tensors()
        _ask(cloner, trials[number % len(trials)], number, seed)
    growth, more = (kept_bytes() - before) / 1e6, live_tensors() - tensors
    return [
        Finding(
            f"memory after {requests} requests minus after {begin}, MB",
            growth,
            f"at most {GROWTH_MB}",
            growth <= GROWTH_MB,
        ),
        Finding("tensors that are alive, difference", float(more), "0", more == 0),
    ]


def live_tensors() -> int:
    """Tensors that somebody still holds."""
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def _ask(cloner: VoiceCloner, trial: Trial, number: int, seed: int) -> None:
    if number % 3 == 0:
        cloner.clone(trial.text, trial.prompt.path, seed=seed + number, candidates=1)
        return
    for _ in cloner.stream(trial.text, trial.prompt.path, seed=seed + number):
        if number % 3 == 1:
            return
