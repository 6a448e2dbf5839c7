"""What `valle clone` does beyond one text and one file: raw samples to a pipe, takes, a measured speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from valle.cli import main
from valle.common.audio import load_audio
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.voice_store import VoiceStore, new_voice_id

PROMPT = "1688-142285-0002.opus"


def test_stream_writes_the_samples_of_the_file(
    model: Path, recordings: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    base = [
        "clone",
        "--model",
        str(model),
        "--prompt",
        str(recordings / PROMPT),
        "--text",
        "Yes. No.",
        "--device",
        "cpu",
    ]
    assert main([*base, "--stream", "--retries", "0"]) == 0
    streamed = np.frombuffer(capfdbinary.readouterr().out, dtype="<i2")
    assert main([*base, "--out", str(tmp_path / "out.wav"), "--retries", "0", "--n-best", "1"]) == 0
    written, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 16000
    assert streamed.shape == written.shape
    assert streamed.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "--out", "a.wav"], "--out does not go with --stream"),
        (["--stream", "--json"], "--json does not go with --stream"),
        (["--out", "a.wav", "--voice", "alloy"], "leave out --prompt"),
        (["--out", "a.wav", "--precision", "fp4"], "unknown precision 'fp4'"),
        (["--out", "a.wav", "--retries", "-1"], "retries 0 to 100"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    model: Path,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["clone", "--model", str(model), "--prompt", str(recordings / PROMPT), "--text", "Yes."]
    assert main([*base, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_language_that_the_model_was_not_trained_on_is_refused_unless_forced(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the embedded model, as its first users have it."""
    command = ["clone", "--prompt", str(recordings / PROMPT), "--text", "Ja.", "--language", "de", "--n-best", "1"]
    out = tmp_path / "out.wav"
    assert main([*command, "--out", str(out)]) == 2
    assert "does not speak 'de'" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--out", str(out), "--any-language", "--retries", "0"]) == 0
    assert out.stat().st_size > 1000


def test_a_stored_voice_is_its_recording_and_transcript(
    make_bundle: Callable[..., Bundle],
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_bundle(aligned=False).save(model := tmp_path / "model")  # it needs no aligner to follow a transcript
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    store, said = VoiceStore(), "There's iron, they say, in all our blood."
    wav = load_audio(recordings / "1688-142285-0000.opus", 16_000)[: 6 * 16_000]
    stored = store.add(new_voice_id(), wav, 16_000, "Me", said, "en-us")
    for name in ("Twin", "Twin"):
        store.add(new_voice_id(), wav, 16_000, name, None, "en-us")
    base = ["clone", "--model", str(model), "--text", "Yes.", "--device", "cpu", "--n-best", "1", "--retries", "0"]

    def speak(*voice: str) -> bytes:
        assert main([*base, *voice, "--out", str(tmp_path / "out.wav")]) == 0
        return (tmp_path / "out.wav").read_bytes()

    by_prompt = speak("--prompt", str(stored.recording), "--prompt-text", said)
    VoiceCloner.from_pretrained(model, "cpu").make_voice(stored.recording, said).save(tmp_path / "me.voice")
    for name in ("Me", stored.id, str(store.folder / "Me"), str(tmp_path / "me.voice")):
        assert by_prompt == speak("--voice", name)
    assert by_prompt != speak("--prompt", str(stored.recording))
    assert speak("--voice", "alloy") == speak("--voice", "libri-1998")
    capsys.readouterr()
    for name, complaint in (("nobody", "'Me'"), ("Twin", "give the id of one: voice_"), ("../x", "no voice 'x'")):
        assert main([*base, "--voice", name, "--out", str(tmp_path / "out.wav")]) == 2
        assert complaint in (shown := capsys.readouterr().err) and shown.count("\n") == 1


def test_bench_decode_measures_and_draws(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "decode", "--model", str(model), "--sizes", "model", "--seconds", "0.5", "--device", "cpu"]
    assert main([*arguments, "--batches", "1", "2", "--no-cache", "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "decode.json").read_text())
    assert (tmp_path / "decode.png").read_bytes().startswith(b"\x89PNG")
    assert [(row["precision"], row["batch"]) for row in result["decoding"]] == [
        ("fp32", 1),
        ("fp32", 2),
        ("auto", 1),
        ("auto", 2),
    ]
    for row in result["decoding"]:
        assert row["tokens_per_second"] == pytest.approx(row["batch"] / row["step_ms"] * 1e3, rel=0.01)
        assert row["share_of_limit"] > 0
        assert (row["speedup"] is None) == (row["batch"] > 1)
    assert result["cloning"]["first_chunk_seconds"] > 0


def test_the_best_take_is_kept(model: Path, recordings: Path, tmp_path: Path) -> None:
    base = ["clone", "--model", str(model), "--prompt", str(recordings / PROMPT), "--text", "Yes.", "--device", "cpu"]
    options = ["--n-best", "2", "--retries", "0", "--out", str(tmp_path / "out.wav")]
    assert main([*base, *options]) == 0
    assert (tmp_path / "out.wav").exists()
    assert main([*base, *options, "--best-by", "luck"]) == 2
