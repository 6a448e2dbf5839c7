"""Synthetic speech says what it was asked to, and its speakers differ as they were made to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import pyworld

from valle.common.errors import UserError
from valle.data.corpus import read_corpus
from valle.data.prepare import prepare_folder
from valle.data.synthesize import Espeak, SpeakerChange, available, change_speaker, engine, invent_speakers, synthesize

TEXT = "The birch canoe slid on the smooth planks."


def pitch(wav: np.ndarray, rate: int) -> float:
    f0, _ = pyworld.harvest(wav, rate)
    return float(np.median(f0[f0 > 0]))


def centroid(wav: np.ndarray, rate: int) -> float:
    power = np.abs(np.fft.rfft(wav)) ** 2
    return float((np.fft.rfftfreq(len(wav), 1 / rate) * power).sum() / power.sum())


def test_every_voice_of_espeak_speaks() -> None:
    espeak = engine("espeak")
    sounds = {voice: espeak.speak(TEXT, voice)[0] for voice in Espeak.voices}
    assert all(1.0 < len(wav) / 22050 < 6.0 and np.abs(wav).max() > 0.05 for wav in sounds.values())
    assert len({wav.tobytes() for wav in sounds.values()}) == len(sounds)
    assert len(espeak.speak(TEXT + " " + TEXT, "en-us+f2")[0]) > 1.8 * len(sounds["en-us+f2"])
    with pytest.raises(UserError, match="no voice nonsense"):
        espeak.speak(TEXT, "nonsense")


def test_a_folder_without_kokoro_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder of Kokoro") as caught:
        engine(f"kokoro={tmp_path}")
    assert "--local-dir" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif("KOKORO" not in os.environ, reason="KOKORO names no folder of its model")
def test_kokoro_speaks_in_its_voices_and_in_mixtures_of_them() -> None:
    kokoro = engine(f"kokoro={os.environ['KOKORO']}")
    voices = (kokoro.voices[0], "mix-000", "mix-001")
    sounds = [kokoro.speak(TEXT, voice)[0] for voice in voices]
    assert all(1.5 < len(wav) / 24_000 < 6.0 and np.abs(wav).max() > 0.05 for wav in sounds)
    assert np.array_equal(kokoro.speak(TEXT, "mix-001")[0], sounds[2])
    assert len({wav.tobytes() for wav in sounds}) == 3


@pytest.mark.parametrize("name", ["flite", "festival"])
def test_every_voice_of_an_installed_program_speaks(name: str) -> None:
    if name not in available():
        pytest.skip(f"{name} is not installed")
    sounds = {voice: engine(name).speak(TEXT, voice) for voice in engine(name).voices}
    assert all(1.0 < len(wav) / rate < 6.0 and np.abs(wav).max() > 0.05 for wav, rate in sounds.values())
    # flite takes its default for a voice that it lacks, without a word.
    assert len({wav.tobytes() for wav, _ in sounds.values()}) == len(sounds)


def test_a_changed_speaker_has_the_pitch_formants_and_tempo_asked_for() -> None:
    wav, rate = engine("espeak").speak(TEXT, "en-us+m3")
    same = change_speaker(wav, rate, SpeakerChange())
    higher = change_speaker(wav, rate, SpeakerChange(pitch=1.3))
    assert pitch(higher, rate) / pitch(same, rate) == pytest.approx(1.3, rel=0.03)
    assert len(change_speaker(wav, rate, SpeakerChange(tempo=1.25))) / len(same) == pytest.approx(0.8, rel=0.02)
    shorter = change_speaker(wav, rate, SpeakerChange(formants=1.15))
    assert centroid(shorter, rate) > 1.05 * centroid(same, rate)
    assert pitch(shorter, rate) == pytest.approx(pitch(same, rate), rel=0.03)
    with pytest.raises(UserError, match=r"0\.25"):
        SpeakerChange(pitch=10.0)


def test_a_corpus_is_made_once_and_completed_when_parts_are_missing(tmp_path: Path) -> None:
    (tmp_path / "sentences.txt").write_text(
        "One sentence to read.\n\nAnd another one to read.\nA third one ends the list.\n"
    )
    asked = {"utterances": 6, "speakers": 40, "engines": ["espeak"], "seed": 1}
    table = synthesize(tmp_path / "sentences.txt", tmp_path / "out", **asked)
    entries = read_corpus(table)
    assert sorted(e.text for e in entries) == sorted(
        ["One sentence to read.", "And another one to read.", "A third one ends the list."] * 2
    )
    before = {e.path: e.path.stat().st_mtime_ns for e in entries}
    entries[2].path.unlink()
    synthesize(tmp_path / "sentences.txt", tmp_path / "out", **asked)
    assert [p for p, time in before.items() if p.stat().st_mtime_ns != time] == [entries[2].path]
    assert len(prepare_folder(table, tmp_path / "corpus", jobs=1).kept) == 6


def test_speakers_are_many_and_the_same_for_a_seed() -> None:
    speakers = invent_speakers(["espeak"], 100, seed=3)
    assert len({(s.voice, s.change) for s in speakers}) == 100 == len({s.name for s in speakers})
    assert speakers == invent_speakers(["espeak"], 100, seed=3)
    assert "espeak" in available()
    with pytest.raises(UserError, match="nobody"):
        engine("nobody")
