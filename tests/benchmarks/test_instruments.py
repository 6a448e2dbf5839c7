from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.instruments import Curve, noise_curves, plot_curves, with_noise
from valle.eval.judges.judging import JudgeNames, Judges
from valle.eval.protocols import Recording


def test_noise_has_the_power_that_is_asked_for(speech) -> None:  # type: ignore[no-untyped-def]
    wav = speech("1688-142285-0002")
    for snr in (20.0, 0.0):
        noise = with_noise(wav, snr, 0) - wav
        measured = 10 * (wav.square().mean() / noise.square().mean()).log10()
        assert float(measured) == pytest.approx(snr, abs=0.1)


def test_a_curve_that_rises_is_noticed() -> None:
    assert Curve("sim", (20, 0), [0.9, 0.5]).falls
    assert not Curve("sim", (20, 0), [0.5, 0.9]).falls
    assert Curve("wer", (20, 0), [0.1, 0.9]).falls
    assert not Curve("wer", (20, 0), [0.9, 0.1]).falls


@pytest.mark.slow
def test_every_metric_falls_with_growing_noise(recordings: dict[str, Recording], tmp_path: Path) -> None:
    chosen = [recordings[id_] for id_ in ("1688-142285-0009", "3005-163389-0001", "3331-159605-0005")]
    judges = Judges.build(JudgeNames(naturalness=("dnsmos",), reading=False))
    curves = noise_curves(chosen, judges, ["stoi", "pesq", "mcd"], snrs=(40, 20, 0))
    assert {curve.metric for curve in curves} >= {"wer", "sim", "dnsmos", "stoi", "pesq", "mcd"}
    # DNSMOS' SIG judges the speech apart from the noise behind it.
    assert [curve.metric for curve in curves if not curve.falls and curve.metric != "dnsmos_sig"] == []
    plot_curves(curves, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 10_000
