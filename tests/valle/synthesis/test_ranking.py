"""The model's own ear, on real speech with the embedded model."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

import valle
from valle.common.audio import load_audio
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.ranking import OwnEar

LIST = Path(valle.__file__).parent / "assets" / "eval" / "list.tsv"


@pytest.fixture(scope="module")
def cloner() -> VoiceCloner:
    return VoiceCloner.from_pretrained(device="cpu")


def test_a_take_of_the_text_in_the_voice_is_the_best(cloner: VoiceCloner) -> None:
    ear = OwnEar(cloner.bundle)
    with LIST.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    speakers: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        speakers.setdefault(row["speaker"], []).append(row)
    voices = list(speakers.values())
    for own, other in itertools.pairwise(voices[:3]):
        takes = [load_audio(LIST.parent / row["path"], cloner.sample_rate) for row in (own[1], own[2], other[0])]
        voice = cloner.make_voice(LIST.parent / own[0]["path"])
        right, other_text, other_voice = ear(own[1]["text"].lower(), voice, takes, cloner.sample_rate)
        assert right > max(other_text, other_voice)
        same, another = ear._likeness(voice, [takes[0], takes[2]])
        assert same > another
