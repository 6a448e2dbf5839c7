"""`valle bench codec`: what it times, and what it says."""

from __future__ import annotations

import json

import pytest

from valle.bench import codecs
from valle.cli import main

SMALL = {
    "spectral": {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": (1, 1), "codebook_size": 8},
    "hificodec": {"channels": 128, "decoder_channels": 64, "codebook_size": 8},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "PUBLISHED", SMALL)


def test_codecs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["bench", "codec", "--codecs", "spectral", "hificodec", "--seconds", "0.2", "--rounds", "1"]
    assert main([*options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    spectral, hificodec = printed["codecs"]
    assert (spectral["sample_rate"], hificodec["frame_rate"], printed["seconds"]) == (16000, 75, 0.2)
    assert 0 < spectral["encode_rtf"] < 10 and hificodec["decode_speedup"] == 1
    assert spectral["decode_speedup"] == pytest.approx(hificodec["decode_rtf"] / spectral["decode_rtf"])
    assert spectral["decode_macs"] < hificodec["decode_macs"] < 1e9


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "codec", "--codecs", "opus"]) == 2
    assert "no published size of 'opus' is known" in capsys.readouterr().err
    assert main(["bench", "codec", "--seconds", "0"]) == 2
