"""How well a system clones voices: `evaluate_tts`.

One prompt a speaker says every sentence; a recogniser and a speaker model judge the result. Beside their figures stand
those of the same two judges on real recordings, without which they mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from tqdm import tqdm

from valle.eval.lists import Recording
from valle.eval.measure import Score
from valle.eval.recognisers import Recogniser
from valle.eval.similarity import SpeakerModel, embed_all, likeness, voice_spread
from valle.eval.stats import Estimate, estimate
from valle.eval.text import TextScore, cer, score_text, wer
from valle.tokenizers.audio import load_audio, save_audio
from valle.tokenizers.errors import UserError

SAMPLE_RATE = 16_000
"""At which outputs of other systems and recordings are read; the judges listen at this rate."""


class Cloner(Protocol):
    """What is evaluated: `valle.VoiceCloner`, or anything with its `clone`."""

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Any:
        """Speech with `wav` [S], `sample_rate` and `stop_reason`."""


@dataclass(frozen=True)
class Job:
    """One sentence to be said in one voice."""

    id: str
    """Also the name of its audio file."""
    prompt: Recording
    text: str


@dataclass(frozen=True)
class Output:
    """What a system made of a job.

    wav: float [S]
    """

    wav: Tensor
    sample_rate: int
    stop_reason: str = ""
    seconds_to_make: float = math.nan

    @property
    def seconds(self) -> float:
        return self.wav.shape[0] / self.sample_rate


@dataclass(frozen=True)
class TTSRow:
    """One judged output."""

    job: Job
    seconds: float
    stop_reason: str
    text: TextScore
    sim: Score
    """Likeness to the prompt."""
    sim_others: Score
    """Mean likeness to the prompts of the other speakers: where it reaches `sim`, the prompt was ignored."""


@dataclass(frozen=True)
class TTSReport:
    """What `evaluate_tts` found."""

    metrics: dict[str, Estimate]
    """wer, cer, sim, sim_others; skips and repeats: share of the sentences with any."""
    context: dict[str, Estimate]
    """The same judges on real recordings: recordings_wer, recordings_cer, same_speaker, different_speakers."""
    rows: list[TTSRow]
    real_time_factor: float = math.nan
    """Seconds of computing per second of speech; NaN for the outputs of another system."""


def plan(prompts: Sequence[Recording], sentences: Sequence[str]) -> list[Job]:
    """Every sentence in every voice; ids are `<prompt id>.<sentence number, from 0>`."""
    return [Job(f"{prompt.id}.{i:03d}", prompt, text) for prompt in prompts for i, text in enumerate(sentences)]


def synthesise(cloner: Cloner, jobs: Sequence[Job], use_prompt_text: bool = True, seed: int = 0) -> list[Output]:
    """Clone all jobs; job number i (from 0) gets seed `seed + i`."""
    outputs = []
    for i, job in enumerate(tqdm(jobs, desc="clone", unit="utt", disable=None, leave=False)):
        prompt_text = job.prompt.text if use_prompt_text else None
        started = time.perf_counter()
        speech = cloner.clone(job.text, prompt=job.prompt.path, prompt_text=prompt_text, seed=seed + i)
        wav, took = speech.wav.detach().cpu().flatten(), time.perf_counter() - started
        outputs.append(Output(wav, speech.sample_rate, str(speech.stop_reason), took))
    return outputs


def read_outputs(folder: str | Path, jobs: Sequence[Job]) -> list[Output]:
    """The outputs of any other system: `<folder>/<job id>.wav`. Raises `UserError` naming the first that is missing."""
    folder = Path(folder)
    missing = [job for job in jobs if not (folder / f"{job.id}.wav").is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(jobs)} outputs are missing, first: {folder / (missing[0].id + '.wav')}; "
            "'valle eval tts --list-jobs' prints what must be said, with which prompt"
        )
    return [Output(load_audio(folder / f"{job.id}.wav", SAMPLE_RATE), SAMPLE_RATE) for job in jobs]


def write_outputs(folder: Path, jobs: Sequence[Job], outputs: Sequence[Output]) -> None:
    """Keep `outputs` as `<folder>/<job id>.wav`."""
    for job, output in zip(jobs, outputs, strict=True):
        save_audio(folder / f"{job.id}.wav", output.wav, output.sample_rate)


def evaluate_tts(
    cloner: Cloner,
    prompts: Sequence[Recording],
    sentences: Sequence[str],
    recogniser: Recogniser,
    speaker_model: SpeakerModel,
    recordings: Sequence[Recording] = (),
    use_prompt_text: bool = True,
    seed: int = 0,
) -> TTSReport:
    """Let `cloner` say every sentence with every prompt and judge the result: `plan`, `synthesise`, `judge`.

    recordings: real ones for the context; without any there is none
    seed:       of synthesis and bootstrap; the same seed gives the same report, but for the real-time factor
    """
    jobs = plan(prompts, sentences)
    outputs = synthesise(cloner, jobs, use_prompt_text, seed)
    return judge(jobs, outputs, recogniser, speaker_model, recordings, seed)


def judge(
    jobs: Sequence[Job],
    outputs: Sequence[Output],
    recogniser: Recogniser,
    speaker_model: SpeakerModel,
    recordings: Sequence[Recording] = (),
    seed: int = 0,
) -> TTSReport:
    """Judge what any system made of `jobs` (see `evaluate_tts`).

    An output in which nothing is heard counts as 100 % errors; it has no voice and so no likeness, which `excluded`
    of the estimate tells.
    """
    rows = _rows(jobs, outputs, recogniser, speaker_model)
    metrics = {
        "wer": wer([row.text for row in rows], seed),
        "cer": cer([row.text for row in rows], seed),
        "sim": estimate([row.sim.value for row in rows], seed=seed),
        "sim_others": estimate([row.sim_others.value for row in rows], seed=seed),
        "skips": estimate([float(bool(row.text.skipped)) for row in rows], seed=seed),
        "repeats": estimate([float(bool(row.text.repeated)) for row in rows], seed=seed),
    }
    context = judge_recordings(recordings, recogniser, speaker_model, seed) if recordings else {}
    seconds = sum(output.seconds for output in outputs)
    return TTSReport(metrics, context, rows, sum(o.seconds_to_make for o in outputs) / seconds if seconds else math.nan)


def judge_recordings(
    recordings: Sequence[Recording], recogniser: Recogniser, speaker_model: SpeakerModel, seed: int = 0
) -> dict[str, Estimate]:
    """The judges on real recordings: `recordings_wer`, `recordings_cer`, `same_speaker`, `different_speakers`."""
    wavs = [load_audio(recording.path, SAMPLE_RATE) for recording in recordings]
    heard = recogniser.transcribe(wavs, SAMPLE_RATE)
    texts = [score_text(recording.text, text) for recording, text in zip(recordings, heard, strict=True)]
    spread = voice_spread(embed_all(speaker_model, wavs, SAMPLE_RATE), [recording.speaker for recording in recordings])
    return {
        "recordings_wer": wer(texts, seed),
        "recordings_cer": cer(texts, seed),
        "same_speaker": estimate(spread.same_speaker, seed=seed),
        "different_speakers": estimate(spread.different_speakers, seed=seed),
    }


def _rows(
    jobs: Sequence[Job], outputs: Sequence[Output], recogniser: Recogniser, speaker_model: SpeakerModel
) -> list[TTSRow]:
    rates = {output.sample_rate for output in outputs}
    if len(rates) != 1:
        raise ValueError(f"outputs must have one sample rate, got {sorted(rates)}")
    rate = rates.pop()
    wavs = [output.wav for output in outputs]
    heard = recogniser.transcribe(wavs, rate)
    prompts = list({job.prompt.id: job.prompt for job in jobs}.values())
    prompt_wavs = [load_audio(prompt.path, SAMPLE_RATE) for prompt in prompts]
    prompt_voices = dict(zip((p.id for p in prompts), embed_all(speaker_model, prompt_wavs, SAMPLE_RATE), strict=True))
    rows = []
    for job, output, text, voice in zip(jobs, outputs, heard, embed_all(speaker_model, wavs, rate), strict=True):
        others = [likeness(voice, prompt_voices[p.id]).value for p in prompts if p.speaker != job.prompt.speaker]
        known = [value for value in others if value is not None]
        rows.append(
            TTSRow(
                job=job,
                seconds=output.seconds,
                stop_reason=output.stop_reason,
                text=score_text(job.text, text),
                sim=likeness(voice, prompt_voices[job.prompt.id]),
                sim_others=Score(sum(known) / len(known)) if known else Score(None, voice.reason or "one speaker only"),
            )
        )
    return rows
