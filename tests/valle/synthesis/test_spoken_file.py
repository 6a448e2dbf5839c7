"""Speech that goes into a file as it is spoken: what stops it costs nothing, and faulty pieces can be spoken again."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch

from valle.cli import main
from valle.common.audio import AUDIO_SUFFIXES
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle
from valle.synthesis.spoken_file import Pieces, SpokenFile

TEXT = " ".join(f"This is sentence number {number}." for number in range(30))
Clone = Callable[..., int]


@pytest.fixture
def clone(model: Path, recordings: Path) -> Clone:
    """`valle clone` with a tiny model, one take of each sentence; gives the exit code."""
    prompt = str(recordings / "1688-142285-0002.opus")
    base = ["clone", "--prompt", prompt, "--device", "cpu", "--n-best", "1", "--retries", "0"]

    def run(out: Path, *options: str, text: str = TEXT, model: Path = model) -> int:
        return main([*base, "--model", str(model), "--text", text, "--out", str(out), *options])

    return run


def pieces_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.pieces")


def stop_after(lines: int, path: Path) -> None:
    """Press Ctrl-C once `path` has so many lines."""

    def press() -> None:
        while not path.exists() or len(path.read_bytes().splitlines()) < lines:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


@pytest.fixture
def listens() -> Iterator[None]:
    """A process that was started in the background may have been told to take no notice of Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens")
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_a_stopped_command_leaves_what_was_said_and_goes_on(
    clone: Clone, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / f"book{suffix}", tmp_path / f"whole{suffix}"
    assert clone(whole) == 0
    stop_after(5, pieces_of(out))
    assert clone(out) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    said, wanted = soundfile.info(out).duration, soundfile.info(whole).duration
    assert 0 < said < wanted
    # As if it had been killed while it wrote a line.
    pieces_of(out).write_bytes(pieces_of(out).read_bytes()[:-20])
    known = len(pieces_of(out).read_bytes().splitlines())

    assert clone(out, "--seed", "1") == 2
    assert "with another seed" in capsys.readouterr().err
    assert clone(out, text="Something else.") == 2
    assert "with another text" in capsys.readouterr().err
    assert soundfile.info(out).duration == said

    stop_after(known + 5, pieces_of(out))
    assert clone(out) == 130
    assert clone(out) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_nothing_that_was_known_is_spoken_again(cloner: VoiceCloner, recordings: Path) -> None:
    voice, text = cloner.make_voice(recordings / "1688-142285-0002.opus"), f"{TEXT} 你好。 The end."
    whole = cloner.clone(text, voice, candidates=1)
    steps: list[float] = []
    chunks = list(cloner.sentences(text, voice, candidates=1, known=whole.pieces, progress=steps.append))
    assert torch.equal(torch.cat([chunk.wav for chunk in chunks]), whole.wav)
    assert len(steps) <= len(whole.pieces)
    assert chunks[-1].outcome is not None
    assert [piece.start for piece in chunks[-1].outcome.pieces] == [piece.start for piece in whole.pieces]


def test_faulty_pieces_alone_are_spoken_again(cloner: VoiceCloner, recordings: Path) -> None:
    voice = cloner.make_voice(recordings / "1688-142285-0002.opus")
    text = "Good morning. How are you? It is late."
    before = cloner.clone(text, voice, candidates=1, retries=0)
    first, second, third = (replace(piece, fault="") for piece in before.pieces)
    told = replace(before, pieces=[first, replace(second, fault="stuck"), third])
    assert [fault["text"] for fault in told.faulty] == ["How are you?"]
    assert told.faulty[0]["start"] == pytest.approx(first.codes.shape[1] / 50 + 0.15)

    after = cloner.clone(text, voice, candidates=1, retries=20, again=told)
    assert torch.equal(after.pieces[0].codes, first.codes)
    assert torch.equal(after.pieces[2].codes, third.codes)
    # So that a third round says something else again.
    assert after.pieces[1].candidates > second.candidates
    assert after.pieces[1].fault == ""
    assert after.pieces[1].codes.shape != second.codes.shape or (after.pieces[1].codes != second.codes).any()


def test_faults_are_listed_and_an_error_if_wanted(
    clone: Clone, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that is cut off after five frames."""
    replace(bundle, sampling=replace(bundle.sampling, max_frames=5)).save(tmp_path / "model")
    clone = partial(clone, text="Good morning. How are you?", model=tmp_path / "model")
    out = tmp_path / "out.flac"
    assert clone(out, "--retry-faulty") == 2
    assert "there is no out.flac.pieces" in capsys.readouterr().err
    assert clone(out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert [fault["text"] for fault in facts["faulty"]] == ["Good morning.", "How are you?"]
    assert facts["faulty"][0]["fault"] == "max_length"
    assert "“How are you?”" in facts["notes"][-1]
    before = [json.loads(line) for line in pieces_of(out).read_text().splitlines()]

    assert clone(out, "--strict") == 3
    assert "2 of 2 sentences are faulty" in capsys.readouterr().err
    assert clone(out, "--retry-faulty", "--strict") == 3
    after = [json.loads(line) for line in pieces_of(out).read_text().splitlines()]
    assert after[: len(before)] == before
    assert [line["takes"] for line in after if "takes" in line] == [1, 1, 2, 2]
    assert clone(out, "--retry-faulty", "--seed", "2") == 2
    assert "another seed" in capsys.readouterr().err
    # The pieces of a command that had come to its end are nobody's loss.
    assert clone(out, "--seed", "2") == 0


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_format_is_written_part_by_part(tmp_path: Path, speech: torch.Tensor, suffix: str) -> None:
    out = tmp_path / f"a{suffix.upper()}"
    with SpokenFile(out, 16000, Pieces.read(out, {})) as file:
        for part in speech.split(5000):
            file.add(part)
    samples, rate = soundfile.read(out, dtype="float32")
    assert len(samples) / rate == pytest.approx(len(speech) / 16000, abs=0.1)
    assert torch.corrcoef(torch.stack((torch.from_numpy(samples[: len(speech)]), speech[: len(samples)])))[0, 1] > 0.9
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["wav", "mp3", "opus", "flac"])
def test_a_stream_may_be_encoded(
    model: Path, recordings: Path, capfdbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    prompt = str(recordings / "1688-142285-0002.opus")
    command = ["clone", "--model", str(model), "--prompt", prompt, "--text", TEXT[:100], "--stream", "--strict"]
    raw_code = main(command)
    samples = len(capfdbinary.readouterr().out) // 2
    assert raw_code == main([*command, "--stream-format", name]) == 3
    data = capfdbinary.readouterr().out
    if name == "flac":  # its length is unknown, which libsndfile does not read
        assert data.startswith(b"fLaC")
    else:
        decoded, rate = soundfile.read(io.BytesIO(data))
        assert len(decoded) / rate == pytest.approx(samples / 16000, abs=0.1)
