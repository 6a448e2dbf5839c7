"""Hidden Markov models of phones and silence: likelihoods, transitions, and the best path through an utterance.

Shapes: S states of an utterance's chain, T frames of 10 ms, K emission states of all the models together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.data.mixtures import Mixtures
from valle.data.phone_inventory import N_STATES, PhoneInventory, TokenChain
from valle.data.viterbi import Chains, best_paths

MAX_BATCH_FRAMES = 32_000  # padded frames in a batch: bounds its memory to some 50 MB
# Frames of speech are not independent, so their likelihoods, simply multiplied, overrule what is known about pauses.
PAUSE_SCALE = 5.0


@dataclass(frozen=True)
class Path:
    """The best path through an utterance.

    `states` [T]: the chain state of each frame. `log_likelihood`: of the path, per frame. `score`: by how much, per
    frame, the path fits worse than if each frame could choose among the states of all models: 0 at best. It compares
    utterances of different voices and recordings, and is low where the tokens are not what is spoken.
    """

    states: Tensor
    log_likelihood: float
    score: float


@dataclass(frozen=True)
class PhoneModels:
    """`stay` [K]: the probability that a state lasts another frame. `pauses` [3]: that a silence is there, by place."""

    inventory: PhoneInventory
    mixtures: Mixtures
    stay: Tensor
    pauses: Tensor

    def decode(self, features: Sequence[Tensor], chains: Sequence[TokenChain]) -> Iterator[tuple[int, Path | None]]:
        """The best path of each utterance, in the order of their lengths; `None` if it has too few frames.

        `features`: [T, 39] each. Yields (position in the input, path).
        """
        possible = [i for i in range(len(features)) if len(features[i]) and len(chains[i].emitters)]
        yield from ((i, None) for i in sorted(set(range(len(features))) - set(possible)))
        for batch in _batches(sorted(possible, key=lambda i: -len(features[i])), features):
            paths = self._decode_batch([features[i] for i in batch], [chains[i] for i in batch])
            yield from zip(batch, paths, strict=True)

    def _decode_batch(self, features: list[Tensor], chains: list[TokenChain]) -> Iterator[Path | None]:
        lengths = torch.tensor([len(x) for x in features])
        padded = pad_sequence(features, batch_first=True)
        emissions = self.mixtures.log_likelihood(padded.flatten(0, 1)).view(*padded.shape[:2], -1)
        batch = self._batch(chains)
        states, totals = best_paths(emissions, lengths, batch)
        fit = emissions.gather(2, batch.emitters.gather(1, states)[..., None])[..., 0] - emissions.amax(2)
        for length, path, total, gaps in zip(lengths.tolist(), states, totals.tolist(), fit, strict=True):
            if total == -torch.inf:
                yield None
            else:
                yield Path(path[:length], total / length, float(gaps[:length].mean()))

    def _batch(self, chains: list[TokenChain]) -> Chains:
        """All the chains with the scores of their transitions, padded."""
        scores = zip(*(self._transitions(chain) for chain in chains), strict=True)
        stay, enter, jump, start, final = (pad_sequence(list(x), True, -torch.inf) for x in scores)
        emitters = pad_sequence([chain.emitters for chain in chains], True)
        return Chains(emitters, stay, enter, jump, start, final, N_STATES + 1)

    def _transitions(self, chain: TokenChain) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities [S] of the transitions of `Chains`: stay, enter, jump, start, final."""
        emitters, n = chain.emitters, len(chain.emitters)
        pause = PAUSE_SCALE * torch.cat([self.pauses, torch.ones(1)]).log()
        no_pause = PAUSE_SCALE * torch.cat([1 - self.pauses, torch.zeros(1)]).log()
        leave = (1 - self.stay[emitters]).log()
        reach = N_STATES + 1
        enter, jump, start, final = torch.full((4, n), -torch.inf)
        enter[1:] = leave[:-1] + pause[chain.pauses_begun[1:]]
        jump[reach:] = leave[:-reach] + no_pause[chain.pauses_skipped[reach:]]
        start[0] = pause[chain.pauses_begun[0]]
        final[-1] = 0
        if n > N_STATES:  # a silence at either end may be left out, but not the only thing there is
            start[N_STATES] = no_pause[chain.pauses_skipped[N_STATES]]
            final[-reach] = no_pause[chain.pauses_begun[-N_STATES]]
        return self.stay[emitters].log(), enter, jump, start, final


def _batches(order: list[int], features: Sequence[Tensor]) -> Iterator[list[int]]:
    """Cuts `order`, longest utterance first, so that no padded batch exceeds `MAX_BATCH_FRAMES`."""
    while order:
        size = max(1, MAX_BATCH_FRAMES // len(features[order[0]]))
        yield order[:size]
        order = order[size:]
