"""Spreading the spectra that a decoder makes too even."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import valle
from valle.common.audio import load_audio
from valle.common.errors import UserError
from valle.tokenizers.codecs import load_codec, save_codec
from valle.tokenizers.codecs.base import SpeechCodes
from valle.tokenizers.codecs.contrast import calibrate
from valle.tokenizers.codecs.conv import HifiCodec
from valle.tokenizers.codecs.spectral import SpectralCodec
from valle.tokenizers.codecs.stft import log_size

ASSETS = Path(valle.__file__).parent / "assets"


def spread(wav: torch.Tensor) -> float:
    return float(log_size(wav, 640, 160)[0].std(0).mean())


@torch.no_grad()
def test_calibrated_speech_is_as_lively_as_the_recordings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(dim=32, hidden=64, encoder_layers=2, decoder_layers=(2, 2), codebook_size=64)
    for _ in range(30):  # for the statistics of TIRE's BatchNorm, and codebooks near the data
        codec(torch.randn(8, 1, 3200) * torch.rand(8, 1, 1))
    codec.eval()
    wavs = [load_audio(path, 16000)[:48000] for path in sorted((ASSETS / "eval").glob("*.opus"))[:6]]
    before = codec.fingerprint
    calibrate(codec, wavs)
    assert codec.fingerprint == before  # what it changes is not what decides on codes
    assert min(codec.decoder.contrast.factor.tolist()) > 1, "an untrained decoder hardly changes"
    save_codec(codec, tmp_path)
    again = load_codec(tmp_path)
    for wav in wavs[:2]:
        codes = codec.encode(wav[None, None])
        first = SpeechCodes(codes.codes[:, :1], codes.lengths, codes.time_invariant)
        calibrated = again.decode(first)[0]
        plain = codec.decoder(
            codec.quantizer.decode(first.codes.transpose(1, 2)), codec.time_invariant.decode(codes.time_invariant)
        )
        assert abs(spread(calibrated) / spread(wav[None]) - 1) < abs(spread(plain) / spread(wav[None]) - 1)


@torch.no_grad()
def test_without_calibration_nothing_changes() -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(dim=32, hidden=32, encoder_layers=2, decoder_layers=(2, 1), codebook_size=64, n_q=2).eval()
    codes = codec.encode(torch.randn(1, 1, 6400))
    vectors = codec.quantizer.decode(codes.codes.transpose(1, 2))
    assert codec.time_invariant is not None and codes.time_invariant is not None
    plain = codec.decoder(vectors, codec.time_invariant.decode(codes.time_invariant))
    assert torch.equal(codec.decode(codes)[:, 0], plain)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(UserError, match="no spectra"):
        calibrate(HifiCodec(channels=128, decoder_channels=128), [torch.zeros(1600)])
    with pytest.raises(UserError, match="recordings"):
        calibrate(SpectralCodec(dim=32, hidden=32, encoder_layers=2, decoder_layers=(2, 1)), [])
    with pytest.raises(UserError, match="no spectra"):
        calibrate(SpectralCodec(dim=32, hidden=32, harmonic=True), [torch.zeros(1600)])
