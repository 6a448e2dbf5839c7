"""The disguise: what is heard changes, when it is said does not."""

from __future__ import annotations

import pytest
import torch

from valle.common.errors import UserError
from valle.tokenizers.codecs.conv import TiCodec
from valle.tokenizers.codecs.disguise import Disguise, warp_frequencies
from valle.tokenizers.codecs.stft import log_magnitude


def tone(frequency: float) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(8000) / 16000)[None]


def test_a_tone_is_heard_at_the_multiplied_frequency() -> None:
    spectra = log_magnitude(torch.cat([tone(1000), tone(1000)]), 1280, 320)
    warped = warp_frequencies(spectra, torch.tensor([1.25, 0.8]))
    assert warped[:, 10].argmax(-1).tolist() == [100, 64]  # bins of 12.5 Hz: 1,250 and 800 Hz
    assert warped.shape == spectra.shape


def test_only_those_asked_for_are_disguised_and_within_the_bounds() -> None:
    who = torch.arange(400) % 2 == 0
    disguise = Disguise.draw(who, 1.3, 0.3, torch.Generator().manual_seed(0))
    assert (disguise.factor[~who] == 1).all() and (disguise.tone[~who] == 0).all()
    assert 1 / 1.3 <= disguise.factor.min() < 0.8 and 1.25 < disguise.factor.max() <= 1.3
    spectra = torch.randn(400, 3, 161)
    heard = disguise(spectra)
    torch.testing.assert_close(heard[~who], spectra[~who])
    colour = Disguise(torch.ones(400), disguise.tone)(torch.zeros(400, 1, 161))[who]
    assert 0.27 < colour.std() < 0.33


def test_encoders_of_waveforms_refuse_it() -> None:
    codec = TiCodec(n_q=1, channels=128, decoder_channels=128)
    with pytest.raises(UserError, match="cannot be disguised"):
        codec(torch.zeros(1, 1, 640), disguise=Disguise(torch.ones(1), torch.zeros(1, 6)))
