"""Recordings as users have them: each is either used well or refused with the reason."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.synthesis.prompt import MAX_SECONDS, load_prompt

RATE = 16000
Record = Callable[..., Path]


def level_db(wav: torch.Tensor) -> float:
    return float(20 * wav.square().mean().sqrt().log10())


def test_silence_around_the_speech_is_cut_and_inside_it_kept(speech: torch.Tensor) -> None:
    speech, pause, edge = speech[: 4 * RATE], torch.zeros(RATE), torch.zeros(3 * RATE)
    alone = load_prompt((speech, RATE), RATE)
    padded = load_prompt((torch.cat((edge, speech, pause, speech, edge)), RATE), RATE)
    assert padded.seconds == pytest.approx(2 * alone.seconds + 1.0, abs=0.4)
    assert padded.seconds_given == pytest.approx(6 + 1 + 8)
    assert not padded.is_cut


@pytest.mark.parametrize("gain", [0.1, 2.0])
def test_level_does_not_depend_on_the_recording(speech: torch.Tensor, gain: float) -> None:
    loud, other = load_prompt((speech, RATE), RATE), load_prompt((speech * gain, RATE), RATE)
    assert level_db(other.wav) == pytest.approx(level_db(loud.wav), abs=0.5)
    assert other.wav.abs().max() <= 0.95 + 1e-6


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_other_rates_are_resampled(record: Record, speech: torch.Tensor, rate: int) -> None:
    path = record(torch.from_numpy(resample(speech.numpy(), RATE, rate)), rate)
    prompt, reference = load_prompt(path, RATE), load_prompt((speech, RATE), RATE)
    assert prompt.sample_rate == RATE
    assert prompt.seconds == pytest.approx(reference.seconds, abs=0.1)
    spectra = [torch.fft.rfft(p.wav, 2 * RATE * 6).abs()[:36000].log1p() for p in (prompt, reference)]
    assert torch.nn.functional.cosine_similarity(*spectra, dim=0) > 0.9


def test_channels_are_mixed(record: Record, speech: torch.Tensor) -> None:
    stereo = load_prompt(record(torch.stack((speech, torch.zeros_like(speech)))), RATE)
    mono = load_prompt(record(speech), RATE)
    assert stereo.wav.shape == mono.wav.shape
    assert torch.allclose(stereo.wav, mono.wav, atol=2e-3)


def test_a_recording_is_the_same_however_it_is_given(record: Record, speech: torch.Tensor, tmp_path: Path) -> None:
    path = record(speech)
    want = load_prompt(path, RATE).wav
    content, samples = path.read_bytes(), torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    read, write = os.pipe()
    threading.Thread(target=lambda: (os.write(write, content), os.close(write)), daemon=True).start()
    with path.open("rb") as file, tempfile.TemporaryFile() as unnamed, os.fdopen(read, "rb") as pipe:
        unnamed.write(content)
        unnamed.seek(0)
        opened = (file, unnamed, pipe, io.BytesIO(content))
        given = [load_prompt(source, RATE).wav for source in (str(path), content, bytearray(content), *opened)]
    stereo = torch.stack((samples, samples))
    arrays = [samples, samples.double(), stereo, stereo.T, samples[None], samples[:, None], samples.requires_grad_()]
    arrays += [stereo.detach().T.numpy(), samples.detach().numpy()[::-1].copy()[::-1]]
    given += [load_prompt((array, RATE), RATE).wav for array in arrays]
    for wav in given:
        assert torch.allclose(wav, want, atol=1e-6)
    for bits in (16, 32):
        whole = (samples.detach().double() * 2 ** (bits - 1)).round().numpy().astype(f"int{bits}")
        assert torch.allclose(load_prompt((whole, np.int64(RATE)), RATE).wav, want, atol=1e-4)


def test_a_long_recording_is_cut_to_where_there_is_speech(speech: torch.Tensor) -> None:
    minutes = torch.zeros(600 * RATE)
    busy = slice(400 * RATE, 400 * RATE + 3 * speech.shape[0])
    minutes[busy] = speech.repeat(3)
    minutes[: 2 * RATE] = speech[: 2 * RATE]
    prompt = load_prompt((minutes, RATE), RATE)
    assert prompt.is_cut
    assert prompt.seconds == pytest.approx(MAX_SECONDS)
    assert any("4" in note and "600 s long" in note for note in prompt.notes)
    frames = prompt.wav.view(-1, 320).square().mean(1)
    assert (frames > 1e-6).float().mean() > 0.8


def test_a_short_recording_is_used_with_a_note(speech: torch.Tensor) -> None:
    assert any("3 s or more" in note for note in load_prompt((speech[: 2 * RATE], RATE), RATE).notes)
    assert load_prompt((speech, RATE), RATE).notes == []


def test_a_clipped_recording_is_noted(speech: torch.Tensor) -> None:
    assert any("clipped" in note for note in load_prompt(((speech * 30).clamp(-1, 1), RATE), RATE).notes)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(4 * RATE), "silent"),
        (torch.full((4 * RATE,), 0.3), "silent"),
        (1e-5 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0)), "silent"),
        (torch.zeros(0), "no audio samples"),
        (torch.zeros(40), "silent"),
    ],
    ids=["zeros", "constant", "hiss", "empty", "a few samples"],
)
def test_nothing_to_hear_is_refused(record: Record, wav: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_prompt(record(wav), RATE)


def test_too_little_speech_is_refused_with_advice(record: Record, speech: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"at least 1 s \(3 s or more recommended\)"):
        load_prompt(record(speech[RATE : RATE + RATE // 5]), RATE)


def test_files_that_are_no_audio_are_refused(tmp_path: Path, record: Record, speech: torch.Tensor) -> None:
    (tmp_path / "text.wav").write_text("this is no audio")
    whole = record(speech).read_bytes()
    (tmp_path / "headless.wav").write_bytes(whole[20:])
    for name in ("text.wav", "headless.wav"):
        with pytest.raises(UserError, match=f"cannot read .*{name} as audio"):
            load_prompt(tmp_path / name, RATE)
    with pytest.raises(UserError, match=r"not found: .*missing\.wav"):
        load_prompt(tmp_path / "missing.wav", RATE)


def test_tensors_that_are_no_audio_are_refused() -> None:
    for wav in (torch.zeros(2, 3, 4), torch.zeros(0), torch.tensor([0.0, np.nan])):
        with pytest.raises(UserError, match="must be finite samples"):
            load_prompt((wav, RATE), RATE)
    for array in (np.zeros(9, np.uint8), np.zeros(9, int), np.zeros(9, bool), np.zeros(9, complex)):
        with pytest.raises(UserError, match="signed integers of 8, 16 or 32 bits"):
            load_prompt((array, RATE), RATE)
    good = np.zeros(RATE, np.float32)
    for wrong in (
        (RATE, good),
        (good,),
        (good, RATE, 1),
        (good, None),
        (good, np.nan),
        ("me.wav", RATE),
        (["a"], RATE),
    ):
        with pytest.raises(UserError, match=r"must be \(wav, rate\)"):
            load_prompt(wrong, RATE)  # type: ignore[arg-type]
    for rate in (0, -RATE, 10**9):
        with pytest.raises(UserError, match="samples a second"):
            load_prompt((good, rate), RATE)


def test_files_that_hold_nothing_are_refused(record: Record, speech: torch.Tensor, tmp_path: Path) -> None:
    file = io.BytesIO(record(speech).read_bytes())
    file.read()
    for source in (b"", file):
        with pytest.raises(UserError, match="is empty, or was read to its end"):
            load_prompt(source, RATE)
    with pytest.raises(UserError, match="cannot read the recording as audio"):
        load_prompt(b"this is no audio", RATE)
    (tmp_path / "text.txt").write_text("words")
    for source in ((tmp_path / "text.txt").open(), 7, None):
        with pytest.raises(UserError, match="no audio file opened for reading bytes"):
            load_prompt(source, RATE)  # type: ignore[arg-type]
