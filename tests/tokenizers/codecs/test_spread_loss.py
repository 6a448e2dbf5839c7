"""The loss against over-smoothing."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from valle.tokenizers.codecs.losses import MultiMelLoss, spread_loss


def test_it_prefers_a_lively_guess_to_the_mean() -> None:
    torch.manual_seed(0)
    target, guess = torch.randn(2, 3, 200, 10)
    mean = torch.zeros_like(target)
    assert F.l1_loss(mean, target) < F.l1_loss(guess, target)  # why means come out where the loss is this one
    assert spread_loss([guess], [target]) < 0.3 * spread_loss([mean], [target])
    assert spread_loss([target], [target]) == 0


def test_blurred_speech_is_penalised() -> None:
    torch.manual_seed(0)
    mel = MultiMelLoss(16000, [(512, 128, 40)], [1.0])
    noise = torch.randn(2, 1, 16000) * torch.rand(2, 1, 50).repeat_interleave(320, -1)
    spectra = mel.spectra(noise)
    blurred = [F.avg_pool1d(x.transpose(1, 2), 5, 1, 2).transpose(1, 2) for x in spectra]
    assert spread_loss(blurred, spectra) > 5 * spread_loss([x + 0.01 for x in spectra], spectra)
