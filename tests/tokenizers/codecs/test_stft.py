"""STFT framing: sizes, independence of padding, and synthesis as the inverse of analysis."""

from __future__ import annotations

import pytest
import torch

from valle.tokenizers.codecs.stft import hann, log_magnitude, overlap_add


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16000])
def test_one_frame_for_every_started_hop(samples: int) -> None:
    assert log_magnitude(torch.randn(2, samples), 1280, 320).shape == (2, -(-samples // 320), 641)


def test_trailing_zeros_do_not_change_frames() -> None:
    wav = torch.randn(1, 3200)
    padded = torch.nn.functional.pad(wav, (0, 5000))
    torch.testing.assert_close(log_magnitude(padded, 1280, 320)[:, :10], log_magnitude(wav, 1280, 320))


def test_overlap_add_inverts_windowed_spectra() -> None:
    hop, n_fft = 40, 160
    wav = torch.randn(1, hop * 50)
    edge = (n_fft - hop) // 2
    frames = torch.nn.functional.pad(wav, (edge, edge)).unfold(-1, n_fft, hop) * hann(n_fft, wav.device)
    again = overlap_add(torch.fft.rfft(frames), hop)
    assert again.shape == wav.shape
    # Where all four windows overlap, the signal comes back exactly.
    torch.testing.assert_close(again[:, edge * 2 : -edge * 2], wav[:, edge * 2 : -edge * 2], atol=1e-5, rtol=1e-5)
