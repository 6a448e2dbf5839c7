"""PESQ and ViSQOL of the pairs of recordings that their own projects publish scores of.

The recordings are in the projects' repositories and not in their packages. With these four files in one folder,
    speech.wav speech_bab_0dB.wav            github.com/ludlows/PESQ, folder audio
    CA01_01.wav transcoded_CA01_01.wav       github.com/google/visqol, folder testdata/clean_speech
run
    VALLE_REFERENCE_PAIRS=FOLDER pytest tests/eval/judges/test_reference_pairs.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soundfile
import torch

from valle.eval.judges.codec_metrics import find_metric

FOLDER = os.environ.get("VALLE_REFERENCE_PAIRS", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="VALLE_REFERENCE_PAIRS names no folder with the recordings")


@pytest.mark.parametrize(
    ("name", "clean", "degraded", "published", "tolerance"),
    [
        ("pesq", "speech.wav", "speech_bab_0dB.wav", 1.0832337, 1e-3),
        ("visqol", "CA01_01.wav", "transcoded_CA01_01.wav", 3.3129590, 0.05),  # the lattice's, in C++
        ("visqol_poly", "CA01_01.wav", "transcoded_CA01_01.wav", 3.3745056, 0.05),
    ],
)
def test_published_scores(name: str, clean: str, degraded: str, published: float, tolerance: float) -> None:
    (reference, rate), (other, _) = (soundfile.read(Path(FOLDER, file), dtype="float32") for file in (clean, degraded))
    size = min(len(reference), len(other))
    score = find_metric(name)(torch.from_numpy(reference[:size]), torch.from_numpy(other[:size]), rate)
    assert score == pytest.approx(published, abs=tolerance)
