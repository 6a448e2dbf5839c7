"""The pitch tracker on signals whose pitch is known."""

from __future__ import annotations

import math

import pytest
import torch

from valle.tokenizers.codecs.pitch import track_pitch

RATE, HOP = 16000, 320


def buzz(hz: torch.Tensor, harmonics: int = 12) -> torch.Tensor:
    """Harmonics [S] of the pitch `hz` [S], each weaker than the one below, in noise 30 dB below."""
    phase = 2 * math.pi * (hz.double() / RATE).cumsum(0)
    wav = sum((k * phase).sin().float() / k for k in range(1, harmonics + 1))
    return torch.as_tensor(wav) * 0.1 + 0.003 * torch.randn(len(hz))


@pytest.mark.parametrize("hz", [65.0, 110.0, 220.0, 500.0])
def test_a_steady_pitch(hz: float) -> None:
    torch.manual_seed(0)
    found = track_pitch(buzz(torch.full((RATE,), hz))[None], RATE, HOP)[0]
    assert found.shape == (50,)
    assert (found[2:-2] / hz).log2().abs().max() * 1200 < 10, "cents"


def test_a_rising_pitch_is_followed_frame_by_frame() -> None:
    torch.manual_seed(0)
    hz = torch.linspace(100, 200, RATE)
    found = track_pitch(buzz(hz)[None], RATE, HOP)[0, 3:-3]
    true = hz.view(-1, HOP).mean(1)[3:-3]
    assert (found / true).log2().abs().max() * 1200 < 30, "cents"


def test_noise_silence_and_a_weak_fundamental() -> None:
    torch.manual_seed(0)
    phase = 2 * math.pi * 150 * torch.arange(RATE) / RATE
    without_fundamental = 0.1 * ((2 * phase).sin() + (3 * phase).sin() + (4 * phase).sin())
    hz = track_pitch(torch.stack([torch.randn(RATE), torch.zeros(RATE), without_fundamental]), RATE, HOP)
    assert (hz[0] > 0).float().mean() < 0.05
    assert not hz[1].any()
    assert (hz[2, 3:-3] / 150).log2().abs().max() * 1200 < 10


def test_loudness_and_neighbours_in_the_batch_do_not_matter() -> None:
    torch.manual_seed(0)
    wav = buzz(torch.full((RATE + 100,), 130.0))
    alone, together = track_pitch(wav[None], RATE, HOP), track_pitch(torch.stack([wav, wav * 0.2]), RATE, HOP)
    assert alone.shape == (1, 51)
    torch.testing.assert_close(together, alone.expand(2, -1), atol=1e-2, rtol=0)
