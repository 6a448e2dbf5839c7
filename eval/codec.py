"""How much of speech survives a codec: `evaluate_codec`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.eval.codec_consistency import Consistency, measure_consistency
from valle.eval.codec_metrics import DEFAULT_METRICS, find_metric
from valle.eval.lists import Recording
from valle.eval.measure import KeptScores, Score
from valle.eval.recognisers import Recogniser
from valle.eval.similarity import SpeakerModel, embed_all, likeness
from valle.eval.stats import Estimate, estimate
from valle.eval.text import TextScore, cer, score_text, wer
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec, SpeechCodes
from valle.tokenizers.codecs.cost import Cost, measure_cost

OWN = "own"
"""Decoded with the utterance's own time-invariant codes: plain reconstruction."""
CROSS = "cross"
"""Decoded with those of the speaker's next utterance: what cloning does with the prompt's codes. Where these codes
hold the voice and nothing else, the scores stay (TiCodec, section 2.2)."""

DEFAULT_N_QS = (1, 2, 4)


@dataclass(frozen=True)
class CodecRow:
    """One utterance decoded in one way."""

    id: str
    speaker: str
    time_invariant: str
    """`OWN` or `CROSS`."""
    n_q: int
    scores: dict[str, Score]
    """By metric, and `sim` (to the original) where a speaker model was given."""
    text: TextScore | None = None
    """Where a recogniser was given and there was something to recognise."""


@dataclass(frozen=True)
class CodecSummary:
    """All utterances decoded in one way."""

    time_invariant: str
    n_q: int
    bitrate: float
    """Bits per second of the frame codes; the time-invariant codes come once per utterance."""
    decode_rtf: float
    """Seconds of decoding per second of speech."""
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class CodecReport:
    """What `evaluate_codec` found."""

    spec: CodecSpec
    cost: Cost
    consistency: Consistency | None
    """Of the time-invariant part, where the codec has one."""
    time_invariant_bits: float
    """Bits per utterance."""
    encode_rtf: float
    """Seconds of encoding per second of speech."""
    seconds: float
    """Speech evaluated."""
    summaries: list[CodecSummary]
    rows: list[CodecRow]


def evaluate_codec(
    codec: SpeechCodec,
    utterances: Sequence[Recording],
    n_qs: Sequence[int] | None = None,
    cross_time_invariant: bool = True,
    metrics: Sequence[str] = DEFAULT_METRICS,
    recogniser: Recogniser | None = None,
    speaker_model: SpeakerModel | None = None,
    wav_folder: Path | None = None,
    seed: int = 0,
    half_seconds: float | None = None,
    kept: KeptScores | None = None,
    done: Callable[[CodecSummary], None] = lambda summary: None,
) -> CodecReport:
    """Encode and decode `utterances` and compare with the originals.

    n_qs:       numbers of quantizers to decode with; default: those of 1, 2, 4 that the codec has
    cross_time_invariant: also decode with the time-invariant codes of another utterance of the same speaker;
                nothing to do for a codec without such codes
    recogniser, speaker_model: also report `wer` and `cer`, and `sim` to the original
    wav_folder: where to keep the decoded audio, as `<own|cross>-<n_q>/<id>.wav`
    seed:       of the bootstrap
    kept:       scores of an evaluation that was interrupted, to which new ones are added
    done:       called with each summary as soon as there is one
    Raises `UserError` for an unknown metric and for a number of quantizers that the codec has not.
    """
    spec = codec.spec
    n_qs = [n for n in DEFAULT_N_QS if n <= spec.n_q] if n_qs is None else n_qs
    if wrong := [n for n in n_qs if not 1 <= n <= spec.n_q]:
        raise UserError(f"codec '{spec.name}' has {spec.n_q} quantizers and cannot decode with {wrong[0]}")
    originals = [load_audio(u.path, spec.sample_rate) for u in utterances]
    judge = _Judge(utterances, originals, spec.sample_rate, metrics, recogniser, speaker_model, kept or KeptScores())
    donors: dict[str, list[int | None]] = {OWN: list(range(len(utterances)))}
    if cross_time_invariant and spec.n_time_invariant:
        donors[CROSS] = _next_of_speaker(utterances)
    codes, encode_rtf = _encode(codec, originals)
    summaries, rows = [], []
    for way, n_q in product(donors, n_qs):
        decoded, decode_rtf = _decode(codec, codes, donors[way], n_q, originals)
        measured = judge.score(decoded, way, n_q)
        bitrate = n_q * math.log2(spec.codebook_size) * spec.frame_rate
        summaries.append(CodecSummary(way, n_q, bitrate, decode_rtf, _summarise(measured, seed)))
        done(summaries[-1])
        rows += measured
        if wav_folder:
            for utterance, wav in zip(utterances, decoded, strict=True):
                if wav is not None:
                    save_audio(wav_folder / f"{way}-{n_q}" / f"{utterance.id}.wav", wav, spec.sample_rate)
    return CodecReport(
        spec=spec,
        cost=measure_cost(codec),
        consistency=_consistency(codec, originals, utterances, half_seconds),
        time_invariant_bits=spec.n_time_invariant * math.log2(max(1, spec.time_invariant_size)),
        encode_rtf=encode_rtf,
        seconds=sum(wav.shape[0] for wav in originals) / spec.sample_rate,
        summaries=summaries,
        rows=rows,
    )


class _Judge:
    """Scores decoded utterances against the same originals again and again."""

    def __init__(
        self,
        utterances: Sequence[Recording],
        originals: list[Tensor],
        sample_rate: int,
        metrics: Sequence[str],
        recogniser: Recogniser | None,
        speaker_model: SpeakerModel | None,
        kept: KeptScores,
    ) -> None:
        self.utterances, self.originals, self.sample_rate = utterances, originals, sample_rate
        self.kept = kept
        self.functions = {name: find_metric(name).function for name in metrics}
        self.recogniser, self.speaker_model = recogniser, speaker_model
        self.voices = embed_all(speaker_model, originals, sample_rate) if speaker_model else []

    def score(self, decoded: list[Tensor | None], way: str, n_q: int) -> list[CodecRow]:
        """One row an utterance; `decoded` holds [S] or, for an utterance that could not be decoded so, None."""
        there = [i for i, wav in enumerate(decoded) if wav is not None]
        wavs = [wav for wav in decoded if wav is not None]
        names = [*self.functions, *(["sim"] if self.speaker_model else [])]
        alone = dict.fromkeys(names, Score(None, "the speaker has no other recording"))
        rows = [CodecRow(u.id, u.speaker, way, n_q, alone) for u in self.utterances]
        for i, wav in zip(there, tqdm(wavs, desc=f"{way}-{n_q}", unit="utt", disable=None, leave=False), strict=True):
            pair = self.originals[i], wav, self.sample_rate
            scores = {name: self.kept.measure(name, metric, *pair) for name, metric in self.functions.items()}
            rows[i] = replace(rows[i], scores=scores)
        if self.speaker_model:
            for i, voice in zip(there, embed_all(self.speaker_model, wavs, self.sample_rate), strict=True):
                rows[i].scores["sim"] = likeness(self.voices[i], voice)
        if self.recogniser:
            for i, text in zip(there, self.recogniser.transcribe(wavs, self.sample_rate), strict=True):
                rows[i] = replace(rows[i], text=score_text(self.utterances[i].text, text))
        return rows


@torch.inference_mode()
def _encode(codec: SpeechCodec, wavs: list[Tensor]) -> tuple[list[SpeechCodes], float]:
    """Codes of each of `wavs` and the seconds it took per second of speech."""
    device = _device(codec)
    codec.encode(wavs[0][None, None].to(device))  # the first call pays for set-up, which is not what is timed
    started = time.perf_counter()
    # The codes are fetched to the CPU, so that a GPU has done its work when the clock is read.
    codes = [codec.encode(wav[None, None].to(device)).to("cpu") for wav in wavs]
    return codes, (time.perf_counter() - started) * codec.spec.sample_rate / sum(wav.shape[0] for wav in wavs)


@torch.inference_mode()
def _decode(
    codec: SpeechCodec, codes: list[SpeechCodes], donors: list[int | None], n_q: int, originals: list[Tensor]
) -> tuple[list[Tensor | None], float]:
    """Each utterance [S] with the time-invariant codes of its donor (None without a donor); seconds per second."""
    device = _device(codec)
    codec.decode(codes[0].first(n_q).to(device))
    decoded: list[Tensor | None] = [None] * len(codes)
    samples, started = 0, time.perf_counter()
    for i, (own, donor) in enumerate(zip(codes, donors, strict=True)):
        if donor is not None:
            parts = replace(own.first(n_q), time_invariant=codes[donor].time_invariant)
            wav = codec.decode(parts.to(device))[0, 0, : originals[i].shape[0]].cpu()
            decoded[i] = wav
            samples += wav.shape[0]
    seconds = time.perf_counter() - started
    return decoded, seconds * codec.spec.sample_rate / samples if samples else math.nan


def _consistency(
    codec: SpeechCodec, originals: Sequence[Tensor], utterances: Sequence[Recording], seconds: float | None
) -> Consistency | None:
    if not isinstance(codec, AutoencoderCodec) or codec.time_invariant is None:
        return None
    wavs = [wav.to(_device(codec)) for wav in originals]
    return measure_consistency(codec, wavs, [u.speaker for u in utterances], seconds)


def _device(codec: SpeechCodec) -> torch.device:
    return next((p.device for p in codec.parameters()), torch.device("cpu"))


def _next_of_speaker(utterances: Sequence[Recording]) -> list[int | None]:
    """For each utterance the next one of its speaker, in a ring; None where the speaker has no other."""
    of_speaker: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances):
        of_speaker.setdefault(utterance.speaker, []).append(i)
    following: list[int | None] = [None] * len(utterances)
    for own in of_speaker.values():
        if len(own) > 1:
            for i, next_one in zip(own, own[1:] + own[:1], strict=True):
                following[i] = next_one
    return following


def _summarise(rows: list[CodecRow], seed: int) -> dict[str, Estimate]:
    summary = {name: estimate([row.scores[name].value for row in rows], seed=seed) for name in rows[0].scores}
    if texts := [row.text for row in rows if row.text]:
        summary |= {"wer": wer(texts, seed), "cer": cer(texts, seed)}
    return summary
