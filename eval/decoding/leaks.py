"""Whether words of the prompt come out in front of the text, and whether its first or last word is cut (English).

Pocketsphinx follows the text and may put the last words of the prompt in front of it, at a price. How often it is right
is found out with the same recordings: another prompt's words must not be heard, and those of the real prompt must be,
when they are put in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import torch
from torch import Tensor

from valle.common.audio import load_audio, resample
from valle.eval.decoding.findings import Finding
from valle.eval.lists import Recording
from valle.eval.measure import why_inaudible
from valle.eval.reading import BACK, SKIP, counted
from valle.eval.sphinx import SAMPLE_RATE, SphinxText
from valle.eval.stats import estimate
from valle.eval.text import normalise_for_scoring
from valle.eval.trials import Trial
from valle.eval.word_times import WordTimer
from valle.synthesis.cloner import VoiceCloner

TAIL = 5
"""Words at the end of the prompt that are listened for."""
TOLERATED = 0.02
"""Share of the texts by which outputs may be worse than real recordings: about one in fifty is misheard."""


@dataclass(frozen=True)
class Edges:
    """The ends of an output: words of the prompt in front of it, words of the text that are missing there."""

    leaked: list[str]
    first: list[str]
    last: list[str]


class EdgeJudge:
    """Call it with a recording, its text, and words that should not be in front of it."""

    def __init__(self) -> None:
        self._sphinx = SphinxText()

    def __call__(self, wav: Tensor, text: str, before: str = "") -> Edges | None:
        """The ends of `wav` [S] at 16 kHz; None for words that are not in the dictionary."""
        words, tail = normalise_for_scoring(text).split(), normalise_for_scoring(before).split()[-TAIL:]
        if not words or self._sphinx.unknown([*words, *tail]):
            return None
        said = [] if why_inaudible(wav) else self._sphinx.follow(words, wav.numpy(), SKIP, BACK, tail)
        return compare_edges(words, said)


def compare_edges(words: list[str], said: list[str]) -> Edges:
    """`said` beside the `words` of the text; small words alone do not count as missing (`valle.eval.reading`)."""
    if not said:
        return Edges([], words, words)
    leaked: list[str] = []
    first: list[str] = []
    last: list[str] = []
    for chunk in jiwer.process_words(" ".join(words), " ".join(said)).alignments[0]:
        if chunk.type == "insert" and chunk.ref_start_idx == 0:
            leaked = said[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type in ("delete", "substitute"):
            missing = counted(words[chunk.ref_start_idx : chunk.ref_end_idx])
            if chunk.ref_start_idx == 0:
                first = missing
            if chunk.ref_end_idx == len(words):
                last = missing
    return Edges(leaked, first, last)


def check_leaks(
    cloner: VoiceCloner, trials: Sequence[Trial], recordings: Sequence[Recording], seed: int = 0
) -> list[Finding]:
    """Say `trials` after their prompts with transcripts, and listen to the ends; beside them those of `recordings`."""
    judge, ends = EdgeJudge(), _prompt_ends(trials)
    own: list[Edges | None] = []
    others: list[Edges | None] = []
    put: list[Edges | None] = []
    prompts = {trial.prompt_id: trial.prompt_text or "" for trial in trials}
    for number, trial in enumerate(trials):
        said = cloner.clone(trial.text, trial.prompt.path, trial.prompt_text, seed=seed + number, candidates=1)
        wav = torch.from_numpy(resample(said.wav.numpy(), said.sample_rate, SAMPLE_RATE))
        own.append(judge(wav, trial.text, prompts[trial.prompt_id]))
        for other, text in prompts.items():
            if other != trial.prompt_id:
                others.append(judge(wav, trial.text, text))
                break
        if trial.prompt_id in ends:
            put.append(judge(torch.cat((ends[trial.prompt_id], wav)), trial.text, prompts[trial.prompt_id]))
    real = [judge(load_audio(recording.path, SAMPLE_RATE), recording.text) for recording in recordings]

    def share(edges: Sequence[Edges | None], name: str) -> list[float | None]:
        return [None if e is None else float(bool(getattr(e, name))) for e in edges]

    leaks, falsely = estimate(share(own, "leaked"), seed=seed), estimate(share(others, "leaked"), seed=seed)
    limit = TOLERATED + (falsely.value if falsely.n else 0.0)
    found = [
        Finding("texts with words of the prompt in front", leaks, f"at most {limit:.3f}", leaks.value <= limit),
        Finding("  falsely heard: with words of another prompt", falsely),
        Finding("  found: when its end is put in front", estimate(share(put, "leaked"), seed=seed)),
    ]
    for name in ("first", "last"):
        cut, cut_real = estimate(share(own, name), seed=seed), estimate(share(real, name), seed=seed)
        limit = TOLERATED + (cut_real.value if cut_real.n else 0.0)
        found += [
            Finding(f"texts with the {name} words cut", cut, f"at most {limit:.3f}", cut.value <= limit),
            Finding("  the same in real recordings", cut_real),
        ]
    return found


def _prompt_ends(trials: Sequence[Trial]) -> dict[str, Tensor]:
    """The last words [S] of each prompt that can be aligned, at 16 kHz, a second or so."""
    timer, ends = WordTimer(), {}
    for trial in {trial.prompt_id: trial for trial in trials}.values():
        path, text = trial.prompt.path, trial.prompt_text or ""
        words = timer(Recording(trial.prompt_id, path, trial.speaker, text)) if text else None
        if words:
            start, end = words[-min(3, len(words))].start, words[-1].end
            ends[trial.prompt_id] = load_audio(path, SAMPLE_RATE)[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return ends
