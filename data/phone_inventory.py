"""From the tokens of an utterance to its chain of hidden states.

Every phone is a short left-to-right chain of states, shared by its stressed and unstressed variants. Neighbouring
boundary tokens (word boundary, punctuation) share one silence, which may last no time at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

import torch
from torch import Tensor

WORD_BOUNDARY = " "
BOUNDARIES = frozenset({WORD_BOUNDARY, *",.?!;:…—"})
SILENCE, ANY = 0, 1  # the models that every inventory has: silence, and the stand-in for phones that nothing resembles
FIXED_MODELS = ("<silence>", "<any>")
N_STATES = 3
# Taps and reduced vowels often last less than the 30 ms that three states need.
SHORT_PHONES = frozenset({"ɾ", "ə", "ɐ", "ᵻ"})
# The places where a silence may stand; each has its own probability.
BETWEEN_WORDS, AT_PUNCTUATION, AT_EDGE, NOWHERE = range(4)


@dataclass(frozen=True)
class TokenChain:
    """The states of one utterance in order, S of them.

    `emitters` [S]: the emission state of each. `owners` [S]: the position of the token that gets its frames.
    `pauses_begun` [S]: the place of the silence whose first state this is, or `NOWHERE`. `pauses_skipped` [S]: the
    place of the silence right before this state that may be left out, or `NOWHERE`.
    """

    emitters: Tensor
    owners: Tensor
    pauses_begun: Tensor
    pauses_skipped: Tensor


@dataclass(frozen=True)
class PhoneInventory:
    """The models there are, by name: silence, the stand-in, then phones without stress marks."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, symbols: Iterable[str], min_count: int) -> PhoneInventory:
        """Models for the phones that occur at least `min_count` times in `symbols`."""
        counts = Counter(_base_phone(symbol) for symbol in symbols)
        return cls(FIXED_MODELS + tuple(sorted(phone for phone, count in counts.items() if count >= min_count)))

    @cached_property
    def states(self) -> list[range]:
        """The emission states of each model."""
        sizes = [2 if name in SHORT_PHONES else N_STATES for name in self.names]
        return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]

    @property
    def n_states(self) -> int:
        return self.states[-1].stop

    def model_of(self, symbol: str) -> int:
        """The model of a phone: its own, or that of the longest beginning of it which has one (or has it long)."""
        phone = _base_phone(symbol)
        for end in range(len(phone), 0, -1):
            for name in (phone[:end], phone[:end] + "ː"):
                if name in self.names:
                    return self.names.index(name)
        return ANY


def _base_phone(symbol: str) -> str:
    return symbol.replace("ˈ", "").replace("ˌ", "")


class ChainBuilder:
    """Builds the chains of token sequences over `vocab`; `boundaries` are the symbols that may be silent."""

    def __init__(self, inventory: PhoneInventory, vocab: Sequence[str], boundaries: Collection[str]) -> None:
        self.inventory = inventory
        self.vocab = vocab
        self.is_boundary = [symbol in boundaries for symbol in vocab]
        self._models = [SILENCE if symbol in boundaries else inventory.model_of(symbol) for symbol in vocab]

    def __call__(self, tokens: Sequence[int]) -> TokenChain:
        """The chain of `tokens`, ids into the vocabulary; a chain without states for no tokens."""
        emitters: list[int] = []
        owners: list[int] = []
        begun: list[int] = []
        skipped: list[int] = []
        place_before = NOWHERE
        for silent, group in groupby(range(len(tokens)), key=lambda i: self.is_boundary[tokens[i]]):
            positions = list(group)
            place = self._place(tokens, positions) if silent else NOWHERE
            for position in [self._pause_owner(tokens, positions)] if silent else positions:
                states = self.inventory.states[self._models[tokens[position]]]
                emitters += states
                owners += [position] * len(states)
                begun += [place] + [NOWHERE] * (len(states) - 1)
                skipped += [place_before] + [NOWHERE] * (len(states) - 1)
                place_before = place
        return TokenChain(*(torch.tensor(column, dtype=torch.long) for column in (emitters, owners, begun, skipped)))

    def _place(self, tokens: Sequence[int], positions: list[int]) -> int:
        if positions[0] == 0 or positions[-1] == len(tokens) - 1:
            return AT_EDGE
        only_words = all(self.vocab[tokens[i]] == WORD_BOUNDARY for i in positions)
        return BETWEEN_WORDS if only_words else AT_PUNCTUATION

    def _pause_owner(self, tokens: Sequence[int], positions: list[int]) -> int:
        """Among neighbouring boundary tokens a silence belongs to the first punctuation, which is why it is there."""
        return next((i for i in positions if self.vocab[tokens[i]] != WORD_BOUNDARY), positions[0])
