"""Gaussian mixtures with diagonal covariances, one mixture for each state of the aligner's phone models.

Shapes: K states, M components of each, D feature dimensions, N frames. A component that is not in use has log-weight
-inf; a state starts with one component and gets more as its data allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FRAMES_PER_COMPONENT = 50  # fewer frames than this do not pay for one more Gaussian
FRAMES_TO_ESTIMATE = 10  # fewer frames than this say nothing about a variance
VARIANCE_FLOOR = 0.02  # of the variance of all speech
CHUNK = 4096  # frames scored at once: bounds memory to CHUNK x K x M floats


@dataclass(frozen=True)
class Mixtures:
    """K mixtures: `log_weights` [K, M], `means` and `variances` [K, M, D]."""

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def flat(cls, n_states: int, frames: Tensor) -> Mixtures:
        """The same single Gaussian, of all `frames` [N, D], for every state."""
        shape = (n_states, 1, frames.shape[1])
        return cls(
            torch.zeros(n_states, 1),
            frames.mean(0).expand(shape).clone(),
            frames.var(0).expand(shape).clone(),
        )

    def log_likelihood(self, frames: Tensor) -> Tensor:
        """Log-density [N, K] of each frame [N, D] under each state's mixture."""
        projection, bias = self._projection()
        scores = frames.new_empty(len(frames), len(self.means))
        for part, out in zip(frames.split(CHUNK), scores.split(CHUNK), strict=True):
            components = _quadratic(part, projection, bias).view(len(part), -1, len(self.means))
            # A log-sum-exp without the very small terms: they add nothing, and denormal numbers are slow on CPUs.
            peak = components.amax(1)
            torch.add((components - peak[:, None]).clamp_min_(-40).exp_().sum(1).log_(), peak, out=out)
        return scores

    def _projection(self) -> tuple[Tensor, Tensor]:
        """The [2 D, M K] and [M K] that make the weighted log-densities of all components from (x^2, x)."""
        precision = 1 / self.variances
        projection = torch.cat([-0.5 * precision, self.means * precision], -1)
        normaliser = (self.variances.log() + self.means.square() * precision + math.log(2 * math.pi)).sum(-1)
        bias = self.log_weights - 0.5 * normaliser
        return projection.transpose(0, 1).flatten(0, 1).T.contiguous(), bias.T.flatten()

    def reestimated(self, frames: Tensor, states: Tensor) -> Mixtures:
        """One step of expectation-maximisation, each state on the frames [N, D] that `states` [N] gives it.

        A state with too few frames keeps what it had.
        """
        log_weights, means, variances = (
            self.log_weights.clone(),
            self.means.clone(),
            self.variances.clone(),
        )
        floor = VARIANCE_FLOOR * frames.var(0)
        by_state = states.argsort().split(torch.bincount(states, minlength=len(means)).tolist())
        for k, rows in enumerate(by_state):
            if len(rows) < FRAMES_TO_ESTIMATE:
                continue
            x = frames[rows]
            share = _quadratic(x, *self._state(k)._projection()).softmax(1)
            occupancy = share.sum(0)
            kept = occupancy >= min(FRAMES_TO_ESTIMATE / 2, float(occupancy.max()))
            weight = (share / occupancy.clamp_min(1e-8)).T
            mean = weight @ x
            spread = weight @ x.square() - mean.square()
            log_weights[k] = torch.where(kept, occupancy, 0).div(occupancy[kept].sum()).log()
            means[k, kept] = mean[kept]
            variances[k, kept] = spread[kept].maximum(floor)
        return Mixtures(log_weights, means, variances)

    def _state(self, k: int) -> Mixtures:
        return Mixtures(
            self.log_weights[k : k + 1],
            self.means[k : k + 1],
            self.variances[k : k + 1],
        )

    def split(self, counts: Tensor) -> Mixtures:
        """Twice the components: each is cut in two along its standard deviation, where `counts` [K] frames allow it."""
        used = self.log_weights.isfinite()
        allowed = (counts >= 2 * FRAMES_PER_COMPONENT * used.sum(1))[:, None]
        nudge = torch.where(allowed[..., None], 0.2 * self.variances.sqrt(), 0)
        halved = self.log_weights - torch.where(allowed, math.log(2), 0.0)
        twins = torch.where(allowed, halved, -torch.inf)
        return Mixtures(
            torch.cat([halved, twins], 1),
            torch.cat([self.means - nudge, self.means + nudge], 1),
            torch.cat([self.variances, self.variances], 1),
        )

    def pooled(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [D] of all the `states` [n] together, each with equal weight."""
        weights = self.log_weights[states].exp()[..., None] / len(states)
        mean = (weights * self.means[states]).sum((0, 1))
        square = (weights * (self.variances[states] + self.means[states].square())).sum((0, 1))
        return mean, square - mean.square()


def _quadratic(x: Tensor, projection: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, torch.cat([x.square(), x], 1), projection)
