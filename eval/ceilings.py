"""Where a cloning model loses words, voice and naturalness: `evaluate_ceilings`, the command `valle eval ceilings`.

The same sentences are heard after each stage of the model, first with all that the codec encoded, last as cloned:

    recording            as it is
    codec                all quantizers as encoded
    quantizer 1          alone, as encoded
    quantizer 1 + flow   as encoded, the others by the flow (or the NAR model), which is told the text where it reads it
    cloned               from the text alone

The voice (time-invariant codes, context of the flow, prompt) is always that of another recording of the speaker, as in
use; the likeness is that to it. What a row loses against the one above it is that stage's to mend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from valle.common.audio import load_audio, resample
from valle.common.tables import plain_table
from valle.eval.judges.judging import SAMPLE_RATE, Judgement, Judges
from valle.eval.judges.similarity import likeness
from valle.eval.judges.text import score_text
from valle.eval.protocols import Recording, choose_prompts
from valle.eval.results import Row, summarise
from valle.eval.stats import Estimate
from valle.lm import Generated, refine
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.prompt import Voice
from valle.synthesis.utterance import make_request
from valle.tokenizers.codecs.base import SpeechCodes


def stage_figures(rows: Sequence[Row], seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """Of each stage: `wer`, `cer`, `right` (share of texts heard without an error), `sim`, and naturalness."""
    stages: dict[str, list[Row]] = {}
    for row in rows:
        stages.setdefault(row.texts["stage"], []).append(row)
    return {stage: summarise(of, seed) for stage, of in stages.items()}


def stage_table(figures: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Those for a terminal."""
    names = list(next(iter(figures.values())))
    return plain_table([("", *names), *((stage, *(of[n] for n in names)) for stage, of in figures.items())])


def evaluate_ceilings(
    cloner: VoiceCloner, recordings: Sequence[Recording], judges: Judges, clone: bool = True, seed: int = 0
) -> Iterator[Row]:
    """A row for each stage of every recording but the prompts: of each speaker the first of 3 to 8 seconds.

    clone: also say each text from scratch (the last stage), number i with seed `seed + i`
    Raises `UserError` for a speaker with no fitting prompt.
    """
    prompts = {prompt.speaker: prompt for prompt in choose_prompts(list(recordings))}
    voices: dict[str, tuple[Voice, Judgement]] = {}
    heard = [recording for recording in recordings if recording is not prompts[recording.speaker]]
    for index, recording in enumerate(tqdm(heard, desc="ceilings", unit="rec", disable=None, leave=False)):
        if recording.speaker not in voices:
            voice = cloner.make_voice(prompts[recording.speaker].path)
            wav = torch.from_numpy(resample(voice.prompt.wav.numpy(), cloner.sample_rate, SAMPLE_RATE))
            voices[recording.speaker] = voice, judges.judge([wav], [None])[0]
        voice, reference = voices[recording.speaker]
        stages = _stages(cloner.bundle, recording, voice)
        if clone:
            stages["cloned"] = cloner.clone(recording.text, voice, seed=seed + index).wav
        wavs = [torch.from_numpy(resample(w.numpy(), cloner.sample_rate, SAMPLE_RATE)) for w in stages.values()]
        found = judges.judge(wavs, [recording.text] * len(wavs))
        for stage, judgement in zip(stages, found, strict=True):
            text = score_text(recording.text, judgement.heard)
            yield Row(
                {
                    "id": recording.id,
                    "speaker": recording.speaker,
                    "stage": stage,
                    **text.columns(),
                    "right": float(text.words.errors == 0),
                    "sim": likeness(judgement.voice, reference.voice).value,
                    **judgement.naturalness_columns(),
                }
            )


@torch.inference_mode()
def _stages(bundle: Bundle, recording: Recording, voice: Voice) -> dict[str, Tensor]:
    """Waveforms [S] at the codec's rate of all stages before cloning."""
    codec = bundle.codec
    device = next(codec.parameters()).device
    wav = load_audio(recording.path, codec.spec.sample_rate)
    encoded = codec.encode(wav[None, None].to(device)).to("cpu")
    ti = None if voice.time_invariant is None else voice.time_invariant[None]
    encoded = replace(encoded, time_invariant=ti)

    def decode(codes: SpeechCodes) -> Tensor:
        return codec.decode(codes.to(device))[0, 0].cpu()

    stages = {"recording": wav, f"codec, {codec.spec.n_q} quantizers": decode(encoded)}
    stages["quantizer 1"] = decode(encoded.first(1))
    if bundle.refiner is not None:
        phonemes = bundle.encode(recording.text)
        frames = encoded.codes.shape[2]
        found = bundle.aligner.align([phonemes.tolist()], [wav], [frames])[0] if bundle.aligner else None
        durations = None if found is None else torch.tensor(found)
        if durations is not None or not bundle.refiner.config.aligned:
            said = Generated(encoded.codes[0, 0], durations, "", frames)
            request = make_request(phonemes, replace(voice, phonemes=None), bundle.text, 0, 0, 0)
            codes = refine(bundle.refiner, [request], [said], bundle.sampling)[0]
            stages["quantizer 1 + flow"] = decode(replace(encoded, codes=codes[None]))
    return stages
