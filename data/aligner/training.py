"""Training of the phone models from nothing but speech and its phone sequence (Viterbi training from a flat start)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.data.aligner.models import (
    ANY,
    N_STATES,
    NOWHERE,
    Mixtures,
    PhoneInventory,
    PhoneModels,
    TokenChain,
    loudness,
)

logger = logging.getLogger(__name__)

FIRST_STAY = 0.7
FIRST_PAUSES = (0.1, 0.5, 0.9)  # between words, at punctuation, at the utterance's ends


@dataclass(frozen=True)
class Schedule:
    """`iterations` of realigning and re-estimating; after those in `splits`, every state gets twice the Gaussians.

    The first `short_iterations` see only the shortest utterances that make up `short_share` of the
    speech, where a flat start errs least.
    """

    iterations: int = 16
    splits: tuple[int, ...] = (4, 7, 10)
    short_iterations: int = 4
    short_share: float = 0.3


@dataclass(frozen=True)
class Training:
    """What came of it. `log_likelihoods`: per frame, of what each iteration aligned; `scores`: see `Path`, the last."""

    models: PhoneModels
    log_likelihoods: list[float]
    scores: list[float]


def train_phone_models(
    inventory: PhoneInventory, features: Sequence[Tensor], chains: Sequence[TokenChain], schedule: Schedule
) -> Training:
    """Trains on `features` [T, 39] of utterances with their `chains`. Raises `UserError` when none can be aligned."""
    by_length = sorted(range(len(features)), key=lambda i: len(features[i]))
    short = _first_share(by_length, features, schedule.short_share)
    models = _flat_models(inventory, [features[i] for i in short], [chains[i] for i in short])
    history: list[float] = []
    for iteration in range(1, schedule.iterations + 1):
        used = short if iteration <= schedule.short_iterations else by_length
        found = models.decode([features[i] for i in used], [chains[i] for i in used])
        paths = {used[i]: path for i, path in found if path is not None}
        if not paths:
            raise UserError("no utterance of the training data has as many frames as its phones need; check the texts")
        n_frames = sum(len(path.states) for path in paths.values())
        history.append(sum(path.log_likelihood * len(path.states) for path in paths.values()) / n_frames)
        logger.info(
            f"iteration {iteration}/{schedule.iterations}: {len(paths)} utterances aligned, {len(used) - len(paths)} "
            f"with too few frames; log-likelihood per frame {history[-1]:.3f}"
        )
        scores = [path.score for path in paths.values()]
        seen = [features[i] for i in paths], [chains[i] for i in paths], [path.states for path in paths.values()]
        models = _reestimated(models, *seen, split=iteration in schedule.splits)
    return Training(models, history, scores)


def _first_share(order: list[int], features: Sequence[Tensor], share: float) -> list[int]:
    """The beginning of `order` that has `share` of all frames; at least one utterance."""
    frames = np.cumsum([len(features[i]) for i in order])
    return order[: 1 + int(np.searchsorted(frames, share * frames[-1]))]


def _flat_models(inventory: PhoneInventory, features: list[Tensor], chains: list[TokenChain]) -> PhoneModels:
    mixtures = Mixtures.flat(inventory.n_states, torch.cat(features))
    models = PhoneModels(inventory, mixtures, torch.full((inventory.n_states,), FIRST_STAY), torch.tensor(FIRST_PAUSES))
    paths = [_flat_path(x, chain) for x, chain in zip(features, chains, strict=True)]
    return replace(_reestimated(models, features, chains, paths, split=False), pauses=models.pauses)


def _flat_path(features: Tensor, chain: TokenChain) -> Tensor:
    """Chain states [T] of a first guess: the quiet ends are silence, all phone states between are equally long."""
    level = loudness(features)
    low, high = torch.quantile(level, torch.tensor([0.05, 0.95]))
    heard = (level > low + 0.3 * (high - low)).nonzero()[:, 0].tolist() or [0]
    phones = (chain.emitters >= N_STATES).nonzero()[:, 0]
    before, after = torch.arange(int(phones[0])), torch.arange(int(phones[-1]) + 1, len(chain.emitters))
    first, last = heard[0] if len(before) else 0, heard[-1] + 1 if len(after) else len(features)
    return torch.cat([_spread(before, first), _spread(phones, last - first), _spread(after, len(features) - last)])


def _spread(states: Tensor, n_frames: int) -> Tensor:
    """`states` [S] over `n_frames` frames, each for equally long."""
    return states[torch.arange(n_frames) * len(states) // max(1, n_frames)]


def _reestimated(
    models: PhoneModels, features: list[Tensor], chains: list[TokenChain], paths: list[Tensor], split: bool
) -> PhoneModels:
    """The models after the M-step on the utterances' `paths` [T], chain states."""
    n_states = models.inventory.n_states
    emitted = torch.cat([chain.emitters[path] for chain, path in zip(chains, paths, strict=True)])
    frames = torch.cat(features)
    counts = torch.bincount(emitted, minlength=n_states)
    mixtures = models.mixtures.reestimated(frames, emitted)
    if split:
        mixtures = mixtures.split(counts).reestimated(frames, emitted)
    entered = torch.cat([path.diff(prepend=path[:1] - 1) != 0 for path in paths])
    entries = torch.bincount(emitted[entered], minlength=n_states)
    stay = torch.where(counts > 0, 1 - entries / counts.clamp_min(1), FIRST_STAY).clamp(0.05, 0.98)
    return PhoneModels(models.inventory, _with_stand_in(mixtures, models.inventory), stay, _pauses(chains, paths))


def _pauses(chains: list[TokenChain], paths: list[Tensor]) -> Tensor:
    """The share of possible silences that the paths made, by place [3]; never quite 0 or 1."""
    made, possible = torch.ones(NOWHERE), torch.full((NOWHERE,), 2.0)
    for chain, path in zip(chains, paths, strict=True):
        visited = torch.zeros(len(chain.emitters)).index_fill(0, path, 1)
        begins = chain.pauses_begun != NOWHERE
        made.index_add_(0, chain.pauses_begun[begins], visited[begins])
        possible.index_add_(0, chain.pauses_begun[begins], torch.ones(int(begins.sum())))
    return made / possible


def _with_stand_in(mixtures: Mixtures, inventory: PhoneInventory) -> Mixtures:
    """Gives the stand-in for unknown phones the one Gaussian of all phones' states together."""
    own = list(inventory.states[ANY])
    mean, variance = mixtures.pooled(torch.arange(own[-1] + 1, inventory.n_states))
    log_weights, means, variances = mixtures.log_weights.clone(), mixtures.means.clone(), mixtures.variances.clone()
    log_weights[own] = torch.tensor([0.0] + [-torch.inf] * (log_weights.shape[1] - 1))
    means[own], variances[own] = mean, variance
    return Mixtures(log_weights, means, variances)
