"""Checks of how a model decodes: long texts, seams of streams, leaks of the prompt, memory over many requests.

Each gives `Finding`s: a figure beside what is wanted. Shapes: S samples, F frames of the spectrum.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

import jiwer
import torch
from torch import Tensor
from tqdm import tqdm

from valle.bench.memory import kept_bytes
from valle.common.audio import load_audio, resample
from valle.common.errors import UserError
from valle.common.tables import plain_table
from valle.eval.judges.measure import why_inaudible
from valle.eval.judges.reading import BACK, SKIP, counted
from valle.eval.judges.similarity import SpeakerEmbedding, SpeakerModel, embed_all, likeness
from valle.eval.judges.sphinx import SAMPLE_RATE, SphinxText
from valle.eval.judges.text import normalise_for_scoring
from valle.eval.protocols import Recording, Trial, WordTimer
from valle.eval.stats import Estimate, estimate
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.loudness import LOOK_SECONDS
from valle.synthesis.result import SpeechChunk
from valle.synthesis.utterance import FADE_SECONDS

CHARACTERS_A_MINUTE = 2000
"""More than the fastest speaker says."""
DRIFT = 0.03
"""The last minute may be so much more or less like the prompt than the first."""
GROWTH_MB = 32
"""So much more memory may be in use at the end than halfway, when every length of sentence has been met."""
_HOP_SECONDS, _WINDOW_SECONDS = 0.002, 0.016
_FLOOR_DB = -60.0
"""Below the loudest: what is softer counts as silence."""
SEAM_DB = 0.1
"""So much more flux may be at a border than at the same place without one; speech has some 2 dB everywhere."""
HELD_SECONDS = FADE_SECONDS + 2 * LOOK_SECONDS
"""The end of a chunk that comes with the next one: it may be that of a sentence, and what follows may have a peak."""
REACH_SECONDS = 0.02
"""A seam is looked for so far around a border."""
TAIL = 5
"""Words at the end of the prompt that are listened for."""
TOLERATED = 0.02
"""Share of the texts by which outputs may be worse than real recordings: about one in fifty is misheard."""
REQUESTS_GROWTH_MB = 16
"""So much more memory may be in use after all requests than after the first three tenths of them."""


@dataclass(frozen=True)
class Finding:
    """One figure. `wanted` and `met` are empty for what only stands beside another figure."""

    what: str
    value: Estimate | float
    wanted: str = ""
    met: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        value = self.value.to_dict() if isinstance(self.value, Estimate) else {"value": self.value}
        return {"what": self.what, **value, "wanted": self.wanted, "met": self.met}


def table(found: dict[str, Sequence[Finding]]) -> str:
    """The findings of each check as text for a terminal."""
    rows = []
    for check, findings in found.items():
        rows.append((check, "", "", ""))
        for finding in findings:
            value = str(finding.value) if isinstance(finding.value, Estimate) else f"{finding.value:.1f}"
            verdict = {None: "", True: "met", False: "NOT MET"}[finding.met]
            rows.append((f"  {finding.what}", value, finding.wanted, verdict))
    return plain_table(rows)


def check_long_text(
    cloner: VoiceCloner,
    speaker_model: SpeakerModel,
    prompts: Sequence[Recording],
    sentences: Sequence[str],
    minutes: int,
    seed: int = 0,
) -> list[Finding]:
    """Whether a long text ends in the voice, and in the memory, in which it began.

    Each voice says one text of so many minutes, the sentences over and over, and its minutes are compared.
    Each minute is listened to and forgotten before the next, as a player would.
    """
    rounds = -(-minutes * CHARACTERS_A_MINUTE // sum(map(len, sentences)))
    text = " ".join([*sentences] * rounds)
    changes, ends, growths, since_first = [], [], [], []
    for prompt in prompts:
        voice = cloner.make_voice(prompt.path)
        (own,) = embed_all(speaker_model, [voice.prompt.wav], voice.prompt.sample_rate)
        heard: list[SpeakerEmbedding] = []
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


def voice_change(own: SpeakerEmbedding, heard: Sequence[SpeakerEmbedding]) -> float | None:
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


def check_seams(cloner: VoiceCloner, trials: Sequence[Trial], seed: int = 0) -> list[Finding]:
    """Whether the chunks of a stream can be heard: spectral flux where they meet, and elsewhere.

    Streams `trials`, each of one sentence, and looks at the borders of the chunks.
    Borders do not lie anywhere: the first ones come soon after the sentence begins, where speech itself changes fast.
    What a seam adds is therefore the difference to the same places of the same sentence made as a whole.
    """
    at: list[float] = []
    elsewhere: list[float] = []
    whole: list[float | None] = []
    voices = {path: cloner.make_voice(path) for path in {trial.prompt.path for trial in trials}}
    for trial in trials:
        voice = voices[trial.prompt.path]
        chunks = [chunk.wav for chunk in cloner.stream(trial.text, voice, seed=seed)]
        streamed, made = torch.cat(chunks), cloner.clone(trial.text, voice, seed=seed, candidates=1).wav
        spec = cloner.bundle.codec.spec
        borders = [border + round(HELD_SECONDS * spec.sample_rate) for border in accumulate(map(len, chunks[:-1]))]
        near, far = places(borders, len(streamed), spec.sample_rate, spec.hop_length)
        if near and far:
            at.append(fmean(peaks(streamed, near, spec.sample_rate)))
            elsewhere.append(fmean(peaks(streamed, far, spec.sample_rate)))
            # A sentence that was spoken again when nobody heard it yet is another one.
            same = made.shape == streamed.shape
            whole.append(fmean(peaks(made, near, spec.sample_rate)) if same else None)
    more = estimate([a - b for a, b in zip(at, elsewhere, strict=True)], seed=seed)
    seam = estimate([None if b is None else a - b for a, b in zip(at, whole, strict=True)], seed=seed)
    return [
        Finding("flux at the borders of chunks, dB", estimate(at, seed=seed)),
        Finding("borders minus elsewhere", more),
        Finding("borders minus the same places made as a whole", seam, f"at most {SEAM_DB}", seam.value <= SEAM_DB),
    ]


def places(borders: Sequence[int], size: int, sample_rate: int, hop: int) -> tuple[list[int], list[int]]:
    """Samples to look at: the `borders`, and all others a whole number of codec frames (`hop`) from them.

    Not those near the ends of the recording [size], where it is faded, nor others near a border.
    """
    reach = round(REACH_SECONDS * sample_rate)
    near = [place for place in borders if 2 * reach <= place <= size - 2 * reach]
    if not near:
        return [], []
    grid = range(near[0] % hop, size, hop)
    others = [place for place in grid if all(abs(place - border) > 2 * reach for border in borders)]
    return near, [place for place in others if 2 * reach <= place <= size - 2 * reach]


def peaks(wav: Tensor, where: Sequence[int], sample_rate: int) -> list[float]:
    """The highest spectral flux around each of the samples `where` of `wav` [S]."""
    flux, hop = spectral_flux(wav, sample_rate), round(_HOP_SECONDS * sample_rate)
    reach = round(REACH_SECONDS * sample_rate)
    return [float(flux[max(0, (place - reach) // hop) : (place + reach) // hop + 1].max()) for place in where]


def spectral_flux(wav: Tensor, sample_rate: int) -> Tensor:
    """Mean change of the spectrum's level from frame to frame, in dB: [F], 2 ms each."""
    size, hop = round(_WINDOW_SECONDS * sample_rate), round(_HOP_SECONDS * sample_rate)
    spectrum = torch.stft(wav, size, hop, window=torch.hann_window(size), return_complex=True).abs()
    level = 20 * (spectrum / spectrum.max().clamp(min=1e-9)).clamp(min=10 ** (_FLOOR_DB / 20)).log10()
    return level.diff(dim=1).abs().mean(dim=0)


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
    """`said` beside the `words` of the text; small words alone do not count as missing (`judges.reading`)."""
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
    """Whether words of the prompt come out in front of the text, and whether its first or last word is cut (English).

    Says `trials` after their prompts with transcripts, and listens to the ends; beside them those of `recordings`.
    Pocketsphinx follows the text and may put the last words of the prompt in front of it, at a price. How often it is
    right is found out with the same recordings: another prompt's words must not be heard, and those of the real prompt
    must be, when they are put in front.
    """
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


def check_memory(cloner: VoiceCloner, trials: Sequence[Trial], requests: int, seed: int = 0) -> list[Finding]:
    """Whether a process that speaks again and again keeps anything of it.

    Asks so many times, `trials` over and over: as a whole, streamed, and streamed until the first sound.
    """
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
            f"at most {REQUESTS_GROWTH_MB}",
            growth <= REQUESTS_GROWTH_MB,
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
