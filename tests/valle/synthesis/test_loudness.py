"""Loudness and peaks, measured by others: FFmpeg's EBU R 128 filter, and oversampling by scipy."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from torch import Tensor

from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.loudness import PEAK_DBFS, Leveller, Limiter, loudness
from valle.synthesis.prompt import Voice, load_prompt

RATE = 16000


def true_peak(wav: Tensor) -> float:
    """In dBFS."""
    return 20 * math.log10(np.abs(resample_poly(wav.double().numpy(), 16, 1)).max())


def ffmpeg_loudness(wav: Tensor) -> float:
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono", time_base=Fraction(1, RATE))
    # One number for each 100 ms; the last is of all.
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(wav.numpy()[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    source.push(frame)
    source.push(None)
    found = {}
    while True:
        try:
            found |= sink.pull().metadata
        except (av.BlockingIOError, av.EOFError):
            return float(found["lavfi.r128.I"])


def limited(wav: Tensor, gain: float, size: int) -> Tensor:
    limiter = Limiter(RATE, gain)
    return torch.cat([*(limiter.add(part) for part in wav.split(size)), limiter.end()])


def test_loudness_is_that_of_another_meter(speech: Tensor) -> None:
    for gain in (0.1, 1.0):
        assert loudness(speech * gain, RATE) == pytest.approx(ffmpeg_loudness(speech * gain), abs=0.3)
    assert loudness(torch.zeros(RATE), RATE) == loudness(speech[:1000], RATE) == -math.inf


@pytest.mark.parametrize("gain", [4.0, 20.0])
def test_peaks_between_samples_are_limited_and_all_else_is_left(speech: Tensor, gain: float) -> None:
    out = limited(speech, gain, 3001)
    assert out.shape == speech.shape
    assert true_peak(speech * gain) > 3
    assert true_peak(out) < PEAK_DBFS + 0.2
    assert (out - limited(speech, gain, 100_000)).abs().max() < 1e-5
    # Far from any peak the gain is what was asked for, and nowhere does it jump.
    factors = (out / (speech * gain))[speech.abs() > 1e-3]
    assert factors.max() == pytest.approx(1, abs=1e-5)
    quiet = limited(speech * 0.1, 1.0, 500)
    assert torch.equal(quiet, speech * 0.1)


def test_a_full_scale_square_wave_is_limited() -> None:
    wave = torch.sign(torch.sin(2 * math.pi * 997 * torch.arange(RATE) / RATE))
    assert true_peak(limited(wave, 1.0, 700)) < PEAK_DBFS + 0.2


def test_a_piece_that_is_whole_gets_one_gain_and_one_that_is_not_never_jumps(speech: Tensor) -> None:
    leveller = Leveller(RATE, -20.0, expected=-23.0)
    whole = leveller.add(speech)
    assert loudness(whole, RATE) == pytest.approx(-20, abs=0.1)
    assert torch.allclose(whole, speech * float(whole[1000] / speech[1000]), atol=1e-6)
    leveller.end()
    soft = torch.cat([leveller.add(part) for part in (0.2 * speech).split(RATE // 2)])
    assert loudness(soft[RATE:], RATE) == pytest.approx(-20, abs=1.5)
    heard = speech.abs() > 1e-3
    gains = 20 * torch.log10((soft / (0.2 * speech))[heard])
    # 0.5 s for some 14 dB: a sample's part of it is inaudible.
    assert gains.diff().abs().max() < 0.5
    assert torch.equal(Leveller(RATE, None, expected=-23.0).add(speech), speech)


@pytest.mark.parametrize("gain", [0.05, 1.0])
def test_speech_is_as_loud_as_its_prompt_or_as_is_asked_for(cloner: VoiceCloner, speech: Tensor, gain: float) -> None:
    prompt = load_prompt((speech * gain, RATE), RATE)
    assert prompt.loudness == pytest.approx(loudness(speech * gain, RATE), abs=1)
    voice = cloner.make_voice((speech * gain, RATE))
    assert voice.loudness == pytest.approx(max(-36, prompt.loudness))
    text = "Good morning, all of you who have come such a long way. How are you? It is late, is it not?"
    for wanted, one in ((voice.loudness, voice), (-16.0, cloner.make_voice((speech * gain, RATE), loudness=-16.0))):
        assert loudness(cloner.clone(text, one).wav, RATE) == pytest.approx(wanted, abs=1.0)
        streamed = torch.cat([chunk.wav for chunk in cloner.stream(text, one, candidates=2)])
        assert loudness(streamed, RATE) == pytest.approx(wanted, abs=1.0)
        assert true_peak(streamed) < PEAK_DBFS + 0.2


def test_a_voice_keeps_its_loudness(cloner: VoiceCloner, recordings: Path, tmp_path: Path) -> None:
    voice = cloner.make_voice(recordings / "1688-142285-0002.opus", loudness=-18.5)
    voice.save(tmp_path / "me.voice")
    loaded = Voice.load(tmp_path / "me.voice")
    assert (loaded.loudness, loaded.prompt.loudness) == (-18.5, voice.prompt.loudness)
    assert torch.equal(cloner.clone("Yes.", loaded).wav, cloner.clone("Yes.", voice).wav)
    # What is said does not depend on it.
    loud = cloner.clone("Yes.", replace(voice, loudness=None))
    assert torch.equal(loud.codes, cloner.clone("Yes.", voice).codes)
