"""Small models and batches of invented speech for the tests of the language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from valle.data.batch import LMBatch
from valle.lm import ARConfig, ARModel, LMConfig

BOUNDARIES = (2, 3)
VOCAB, CODES, GROUPS = 12, 20, 2


KINDS = {
    "plain": {},
    "grouped": {"group_size": 3},
    "aligned": {"aligned": True},
    "reusable": {"reusable_prompt": True},
    "reusable-grouped": {"reusable_prompt": True, "group_size": 3},
    "reusable-aligned": {"reusable_prompt": True, "aligned": True},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What makes a config one of each kind of AR model."""
    return request.param


@pytest.fixture
def make_config() -> Callable[..., LMConfig]:
    def make(config_class: type[LMConfig] = ARConfig, **changes: Any) -> LMConfig:
        values: dict[str, Any] = {
            "text_vocab_size": VOCAB,
            "codebook_size": CODES,
            "n_q": 3,
            "n_time_invariant": GROUPS,
            "time_invariant_size": 5,
            "boundary_ids": BOUNDARIES,
            "max_spent": 4,
            "dim": 32,
            "layers": 2,
            "heads": 2,
            "ff": 48,
            "dropout": 0.0,
            "ti_dropout": 0.0,
        }
        return config_class(**(values | changes))

    return make


@pytest.fixture
def make_model() -> Callable[[LMConfig], ARModel]:
    """An AR model whose weights are so large that what is said depends on everything."""

    def make(config: LMConfig) -> ARModel:
        torch.manual_seed(0)
        model = ARModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture
def make_ar(make_config: Callable[..., LMConfig], make_model: Callable[[LMConfig], ARModel]) -> Callable[..., ARModel]:
    """The same, aligned or not, a little larger."""
    return lambda aligned: make_model(make_config(aligned=aligned, dim=64, ff=96, heads=2))


@pytest.fixture
def make_batch() -> Callable[..., LMBatch]:
    def make(lengths: tuple[int, ...] = (9, 7, 11, 5), seed: int = 0) -> LMBatch:
        """Utterances of `lengths` tokens: a boundary at both ends and now and then between, some of zero frames."""
        g = torch.Generator().manual_seed(seed)
        size = max(lengths)
        phonemes = torch.zeros(len(lengths), size, dtype=torch.long)
        durations = torch.zeros_like(phonemes)
        for row, length in enumerate(lengths):
            phonemes[row, :length] = torch.randint(4, VOCAB, (length,), generator=g)
            durations[row, :length] = torch.randint(1, 6, (length,), generator=g)
            boundaries = torch.arange(0, length, 4)
            boundaries = torch.cat((boundaries[boundaries < length - 2], torch.tensor([length - 1])))
            phonemes[row, boundaries] = torch.randint(2, 4, boundaries.shape, generator=g)
            durations[row, boundaries] = torch.randint(0, 3, boundaries.shape, generator=g)
        frames = durations.sum(dim=1)
        codes = torch.randint(0, CODES, (len(lengths), 3, int(frames.max())), generator=g)
        codes *= torch.arange(codes.shape[2]) < frames[:, None, None]
        voices = torch.randint(0, 5, (len(lengths), GROUPS), generator=g)
        return LMBatch(phonemes, torch.tensor(lengths), codes, frames, voices, durations)

    return make
