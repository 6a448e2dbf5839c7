"""What a person waits for: the first audio, the whole speech, and the command from its start to the file."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import valle
from valle.synthesis.cloner import VoiceCloner

PROMPT = Path(valle.__file__).parent / "assets" / "eval" / "3331-159605-0007.opus"
TEXT = "The quick brown {} jumps over the lazy dog, and then it sleeps until the morning."
ANIMALS = ("fox", "cat", "hare", "wolf", "goat", "calf", "duck", "bear")

_STAGES = """
import sys, time
def stage(name):
    print(name, time.time(), flush=True)
stage("python")
import torch
stage("torch")
from valle.synthesis.cloner import VoiceCloner
stage("import")
cloner = VoiceCloner.from_pretrained({model!r}, {device!r})
stage("load")
voice = cloner.make_voice({prompt!r})
stage("voice")
speech = cloner.clone({text!r}, voice)
stage("speak")
speech.save({out!r})
stage("save")
"""


@dataclass(frozen=True)
class Cloning:
    """Medians over some sentences of about five seconds, with a loaded model."""

    make_voice_seconds: float
    first_chunk_seconds: float
    stream_real_time_factor: float
    clone_real_time_factor: float


def measure_cloning(cloner: VoiceCloner) -> Cloning:
    """Clone and stream some sentences, none of them twice; the first round is not counted."""
    voices, firsts, streams, clones = [], [], [], []
    texts = [TEXT.format(animal) for animal in ANIMALS]
    for number, (streamed, cloned) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        start = time.perf_counter()
        voice = cloner.make_voice(PROMPT)
        voices.append(time.perf_counter() - start)
        outcome = list(cloner.stream(streamed, voice, seed=number))[-1].outcome
        assert outcome is not None
        firsts.append(outcome.first_chunk_seconds)
        streams.append(outcome.real_time_factor)
        clones.append(cloner.clone(cloned, voice, seed=number).real_time_factor)
    return Cloning(*(round(statistics.median(times[1:]), 3) for times in (voices, firsts, streams, clones)))


def cold_start(model: str | None, device: str) -> dict[str, float]:
    """Seconds from nothing to a file: of each stage, and of the command `valle clone` as a whole."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.wav")
        code = _STAGES.format(model=model, device=device, prompt=str(PROMPT), text=TEXT.format("fox"), out=out)
        last = time.time()
        stages = {}
        for line in _run(["-c", code]).splitlines():
            name, now = line.split()
            stages[name], last = round(float(now) - last, 2), float(now)
        start = time.time()
        options = ["--prompt", str(PROMPT), "--text", TEXT.format("fox"), "--out", out, "--device", device]
        _run(["-m", "valle", "clone", *options, *(["--model", model] if model else [])])
        return stages | {"command": round(time.time() - start, 2)}


def _run(arguments: list[str]) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
