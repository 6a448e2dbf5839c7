from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from torch import Tensor

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.eval.judges.codec_metrics import METRICS, find_metric, mcd, pesq, stoi
from valle.eval.judges.measure import Score, UnmeasurableError, measure
from valle.eval.results import find_figure

Speech = Callable[[str], Tensor]
RATE = 16_000


@pytest.fixture
def wav(speech: Speech) -> Tensor:
    return speech("1688-142285-0002")


def noisy(wav: Tensor, snr_db: float) -> Tensor:
    noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    return wav + noise * wav.std() * 10 ** (-snr_db / 20)


@pytest.mark.parametrize("name", ["stoi", "pesq", "mcd"])
def test_more_noise_is_always_worse(name: str, wav: Tensor) -> None:
    metric = find_metric(name)
    values = [metric(wav, noisy(wav, snr), RATE) for snr in (30, 15, 0)]
    assert values == sorted(values, reverse=find_figure(name).higher_is_better)
    assert values[0] != values[1] != values[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"), [("visqol", "visqol"), ("visqol_poly", "visqol"), ("dnsmos", "speechmos")]
)
def test_more_noise_is_always_worse_for_the_optional_ones(name: str, package: str, wav: Tensor) -> None:
    pytest.importorskip(package)
    values = [find_metric(name)(wav, noisy(wav, snr), RATE) for snr in (30, 15, 0)]
    assert values == sorted(values, reverse=True)


def test_no_change_is_perfect(wav: Tensor) -> None:
    assert stoi(wav, wav, RATE) == pytest.approx(1, abs=1e-4)
    assert pesq(wav, wav, RATE) == pytest.approx(4.644, abs=1e-3)
    assert mcd(wav, wav, RATE) == 0


@pytest.mark.slow
def test_no_change_is_what_visqol_says_it_is(wav: Tensor) -> None:
    """README of ViSQOL: the polynomial mapping of speech mode makes 5.0 of a perfect similarity."""
    pytest.importorskip("visqol")
    assert find_metric("visqol_poly")(wav, wav, RATE) == pytest.approx(5)
    assert 4 < find_metric("visqol")(wav, wav, RATE) < 5


def test_clipping_is_heard(wav: Tensor) -> None:
    clipped = (wav * 20).clamp(-0.5, 0.5)
    assert pesq(wav, clipped, RATE) < 3
    assert mcd(wav, clipped, RATE) > 1


def test_mcd_against_numpy_and_scipy(wav: Tensor) -> None:
    decoded = noisy(wav, 15)
    edges = np.linspace(0, np.log1p(8000 / 700), 42)  # mel, up to its factor

    def cepstra(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = np.arange(0, len(x) + 1, 160)
        padded = np.pad(x.astype(np.float64), 200)
        window = scipy.signal.get_window("hann", 400)
        spectrum = np.abs(np.fft.rfft([padded[s : s + 400] * window for s in starts], 1024))
        mel = np.log1p(np.fft.rfftfreq(1024, 1 / RATE) / 700)
        hertz = np.expm1(edges) * 700
        bank = [np.interp(np.expm1(mel) * 700, hertz[n : n + 3], [0, 1, 0]) for n in range(40)]
        bands = np.stack([np.average(spectrum, axis=1, weights=triangle) for triangle in bank], axis=1)
        bands = np.maximum(bands, bands.max() / 1000)
        return scipy.fft.dct(np.log(bands), type=2)[:, 1:14] / 40, (spectrum**2).sum(axis=1)

    clean, power = cepstra(wav.numpy())
    other, _ = cepstra(decoded.numpy())
    speaks = power > power.max() * 1e-4
    distances = 10 / math.log(10) * np.sqrt(2 * ((clean - other)[speaks] ** 2).sum(axis=1))
    assert mcd(wav, decoded, RATE) == pytest.approx(distances.mean(), rel=1e-3)


def test_scores_are_what_others_publish_of_the_same_signals() -> None:
    """TorchMetrics' documentation: wide-band PESQ of this noise at 16 kHz 1.7359, STOI at 8 kHz -0.0100."""
    torch.manual_seed(1)
    degraded, clean = torch.randn(8000), torch.randn(8000)
    # Both metrics bring signals to one level; ours takes them in [-1, 1] only.
    assert pesq(clean / 8, degraded / 8, 16000) == pytest.approx(1.7359, abs=1e-4)
    # STOI looks at 10 kHz; ours comes there by way of 16 kHz.
    assert stoi(clean / 8, degraded / 8, 8000) == pytest.approx(-0.0100, abs=1e-3)


@pytest.mark.parametrize("snr", [15, 0])
def test_stoi_against_its_paper(wav: Tensor, snr: float) -> None:
    """Taal et al., 2011, section II, in plain numpy and scipy."""
    decoded = noisy(wav, snr)

    def frames(x: np.ndarray) -> np.ndarray:
        starts = range(0, len(x) - 256 + 1, 128)
        return np.array([x[s : s + 256] for s in starts]) * np.hanning(258)[1:-1]

    both = [frames(scipy.signal.resample_poly(x.double().numpy(), 5, 8)) for x in (wav, decoded)]
    level = 20 * np.log10(np.linalg.norm(both[0], axis=1) + 1e-12)
    speaks = level > level.max() - 40
    envelopes = []
    for framed in both:
        voiced = framed[speaks]
        joined = np.zeros(128 * (len(voiced) + 1))
        for i, frame in enumerate(voiced):
            joined[128 * i : 128 * i + 256] += frame
        power = np.abs(np.fft.rfft(frames(joined), 512)) ** 2
        centres = 150 * 2 ** (np.arange(15) / 3)
        edges = [np.rint(centres * 2 ** (side / 6) * 512 / 10_000).astype(int) for side in (-1, 1)]
        envelopes.append(np.sqrt([power[:, low:high].sum(axis=1) for low, high in zip(*edges, strict=True)]))
    correlations = []
    for end in range(30, envelopes[0].shape[1] + 1):
        clean, other = (e[:, end - 30 : end] for e in envelopes)
        scaled = other * np.linalg.norm(clean, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
        clipped = np.minimum(scaled, clean * (1 + 10 ** (15 / 20)))
        pairs = zip(clean, clipped, strict=True)
        correlations += [np.corrcoef(x, y)[0, 1] for x, y in pairs]
    assert stoi(wav, decoded, RATE) == pytest.approx(np.mean(correlations), abs=0.005)


def test_mcd_is_the_rms_difference_of_the_envelopes_in_db() -> None:
    # White noise through a filter whose log spectrum is d * cos(pi * mel / top): only c_1 changes, by d nepers.
    noise = torch.randn(8 * RATE, generator=torch.Generator().manual_seed(0)).double()
    frequencies = torch.fft.rfftfreq(len(noise), 1 / RATE).double()
    mel = torch.log1p(frequencies / 700) / math.log1p(8000 / 700)
    tilted = torch.fft.irfft(torch.fft.rfft(noise) * torch.exp(0.5 * torch.cos(math.pi * mel)))
    expected = 20 / math.log(10) * 0.5 / math.sqrt(2)  # RMS of a cosine of 0.5 nepers, in dB
    assert mcd((noise * 0.05).float(), (tilted * 0.05).float(), RATE) == pytest.approx(expected, rel=0.05)


def test_mcd_leaves_the_level_out(wav: Tensor) -> None:
    assert mcd(wav, wav * 0.5, RATE) == pytest.approx(0, abs=1e-3)


def test_other_rates_are_resampled(wav: Tensor) -> None:
    def at(rate: int, x: Tensor) -> Tensor:
        return torch.from_numpy(resample(x.numpy(), RATE, rate))

    decoded = noisy(wav, 15)
    for metric in (stoi, pesq, mcd):
        assert metric(at(24_000, wav), at(24_000, decoded), 24_000) == pytest.approx(
            metric(wav, decoded, RATE), rel=0.1
        )


@pytest.mark.parametrize("name", ["stoi", "pesq", "mcd"])
def test_silence_has_a_reason_instead_of_a_score(name: str, wav: Tensor) -> None:
    function = METRICS[name]
    silence = torch.zeros_like(wav)
    assert measure(function, silence, wav, RATE) == Score(None, "reference: silence")
    assert measure(function, wav, silence, RATE) == Score(None, "decoded signal: silence")
    assert measure(function, wav, wav * math.nan, RATE).reason == "decoded signal: samples that are not finite"
    assert measure(function, wav[:0], wav[:0], RATE).reason == "reference: no samples"


def test_too_short_has_a_reason_instead_of_a_score(wav: Tensor) -> None:
    clip = wav[16_000:18_000]
    assert "less than" in measure(stoi, clip, clip, RATE).reason
    assert "shorter than" in measure(pesq, clip, clip, RATE).reason
    assert measure(mcd, clip, clip, RATE).value == 0


def test_misuse_is_not_taken_for_a_bad_recording(wav: Tensor) -> None:
    with pytest.raises(ValueError, match="two signals"):
        stoi(wav, wav[:-1], RATE)
    with pytest.raises(UserError, match="known metrics: stoi, pesq"):
        find_metric("loudness")


def test_a_nan_is_no_score() -> None:
    assert measure(lambda: math.nan) == Score(None, "not a finite number")

    def fails() -> float:
        raise UnmeasurableError("too loud")

    assert measure(fails) == Score(None, "too loud")
