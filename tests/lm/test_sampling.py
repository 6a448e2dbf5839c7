from __future__ import annotations

import pytest
import torch

from valle.common.errors import UserError
from valle.lm.sampling import Sampling, choose, draw, probabilities

LOGITS = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log()


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [0.5, 0.1, 0.3, 0.1]),
        ({"temperature": 0.5}, [0.25 / 0.36, 0.01 / 0.36, 0.09 / 0.36, 0.01 / 0.36]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 2}, [0.5 / 0.8, 0, 0.3 / 0.8, 0]),
        ({"top_k": 9}, [0.5, 0.1, 0.3, 0.1]),
        ({"top_p": 0.49}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [0.5 / 0.8, 0, 0.3 / 0.8, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),
    ],
)
def test_probabilities(options, want):
    torch.testing.assert_close(probabilities(LOGITS, **options), torch.tensor([want], dtype=torch.float32))


def test_draws_follow_the_probabilities():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.2, 0.3, 0.0]])
    uniform = (torch.arange(1000) + 0.5) / 1000
    counts = draw(probs.expand(1000, -1), uniform).bincount(minlength=6)
    assert counts.tolist() == [0, 500, 0, 200, 300, 0]
    edges = torch.tensor([0.0, 1 - 2**-24])
    assert draw(probs.expand(2, -1), edges).tolist() == [1, 4]


def test_repetition_aware_sampling_chooses_again_from_all():
    # Top-k 1 always gives 0; drawing again with the second number gives 2.
    sampling = Sampling(top_k=1, ras_window=4, ras_threshold=0.25)
    uniform = torch.tensor([[0.5, 0.7]] * 3)
    recent = torch.tensor([[-1, 0, 3, 3], [0, 3, 0, 3], [1, 1, 1, 1]])
    assert choose(LOGITS.expand(3, -1), recent, uniform, sampling).tolist() == [0, 2, 0]
    off = Sampling(top_k=1, ras_window=0)
    assert choose(LOGITS.expand(3, -1), recent, uniform, off).tolist() == [0, 0, 0]
    assert choose(LOGITS.expand(3, -1), recent, uniform, Sampling(greedy=True)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_k": -1}, {"ras_threshold": 2.0}, {"max_frames": 0}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(UserError, match="sampling"):
        Sampling(**options)
