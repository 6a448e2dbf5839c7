"""What `valle clone` does beyond one text and one file: raw samples to a pipe, takes, a measured speed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from valle.cli import main

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
