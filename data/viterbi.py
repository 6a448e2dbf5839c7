"""The most likely path through left-to-right hidden Markov models, for a batch of utterances at once.

Shapes: B utterances, T frames, S states of an utterance's own chain, K emission states shared by all chains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chains:
    """One chain of states for each utterance, padded on the right; log-probabilities, -inf where there is no way.

    `emitters` [B, S]: the emission state (0..K-1) of each chain state. `stay`, `enter` and `jump` [B, S]: reaching a
    state from itself, from the state before it, and from the state `jump_length` before it. `start` and `final` [B, S]:
    being in a state at the first frame, and leaving it after the last.
    """

    emitters: Tensor
    stay: Tensor
    enter: Tensor
    jump: Tensor
    start: Tensor
    final: Tensor
    jump_length: int


def best_paths(emissions: Tensor, lengths: Tensor, chains: Chains) -> tuple[Tensor, Tensor]:
    """Viterbi decoding of `emissions` [B, T, K] (log-likelihoods), `lengths` [B] in frames, longest utterance first.

    Returns the chain state of each frame [B, T] (its last state repeated beyond the length) and the log-probability of
    the path [B]; it is -inf, and the path meaningless, for an utterance with fewer frames than its chain needs.
    """
    n_steps = int(lengths[0])
    reach = chains.jump_length
    came_by = torch.zeros(n_steps, *chains.emitters.shape, dtype=torch.uint8)
    score = chains.start + emissions[:, 0].gather(1, chains.emitters)
    entered, jumped = (
        torch.full_like(score, -torch.inf),
        torch.full_like(score, -torch.inf),
    )
    active_per_step = (lengths[None, :] > torch.arange(n_steps)[:, None]).sum(1).tolist()
    for t in range(1, n_steps):
        n = active_per_step[t]  # the utterances that have ended keep their score, and their zeros mean "stay"
        best = score[:n] + chains.stay[:n]
        torch.add(score[:n, :-1], chains.enter[:n, 1:], out=entered[:n, 1:])
        torch.add(score[:n, :-reach], chains.jump[:n, reach:], out=jumped[:n, reach:])
        came_by[t, :n] = entered[:n] > best
        best = torch.maximum(best, entered[:n])
        came_by[t, :n].masked_fill_(jumped[:n] > best, 2)
        score[:n] = torch.maximum(best, jumped[:n]) + emissions[:n, t].gather(1, chains.emitters[:n])
    total, state = (score + chains.final).max(1)
    move = torch.tensor([0, 1, reach])
    path = torch.empty(len(lengths), emissions.shape[1], dtype=torch.long)
    path[:, n_steps - 1 :] = state[:, None]
    for t in range(n_steps - 1, 0, -1):
        state = (state - move[came_by[t].gather(1, state[:, None])[:, 0].long()]).clamp_min(0)
        path[:, t - 1] = state
    return path, total
