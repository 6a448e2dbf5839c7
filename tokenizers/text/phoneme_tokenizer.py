"""Phones of espeak-ng as tokens: `PhonemeTokenizer`."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from valle.common.errors import UserError
from valle.tokenizers.text.characters import MARKS, nearest_end
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.phonemes import WORD_BOUNDARY, phonemize, resolve_language
from valle.tokenizers.text.tokenizer import PAD, UNK, NothingToSayError, TextTokenizer

ENGLISH_PHONES = (
    "aɪ", "aɪə", "aɪɚ", "aʊ", "b", "d", "dʒ", "eɪ", "f", "h", "i", "iə", "iː", "j", "k", "l", "m", "n", "n̩", "oʊ",
    "p", "r", "s", "t", "tʃ", "uː", "v", "w", "x", "z", "æ", "ð", "ŋ", "ɐ", "ɑː", "ɑːɹ", "ɔ", "ɔɪ", "ɔː", "ɔːɹ",
    "ə", "əl", "ɚ", "ɛ", "ɛɹ", "ɜː", "ɡ", "ɪ", "ɪɹ", "ɹ", "ɾ", "ʃ", "ʊ", "ʊɹ", "ʌ", "ʒ", "ʔ", "ˈaɪ", "ˈaɪə", "ˈaɪɚ",
    "ˈaʊ", "ˈeɪ", "ˈiə", "ˈiː", "ˈoʊ", "ˈuː", "ˈæ", "ˈɑː", "ˈɑːɹ", "ˈɔ", "ˈɔɪ", "ˈɔː", "ˈɔːɹ", "ˈɛ", "ˈɛɹ", "ˈɜː",
    "ˈɪ", "ˈɪɹ", "ˈʊ", "ˈʊɹ", "ˈʌ", "ˌaɪ", "ˌaʊ", "ˌeɪ", "ˌiə", "ˌiː", "ˌoʊ", "ˌuː", "ˌæ", "ˌɐ", "ˌɑː", "ˌɑːɹ",
    "ˌɔ", "ˌɔɪ", "ˌɔː", "ˌɔːɹ", "ˌɛ", "ˌɛɹ", "ˌɜː", "ˌɪ", "ˌɪɹ", "ˌʊ", "ˌʊɹ", "ˌʌ", "θ", "ᵻ",
)  # fmt: skip
"""The phones of American English as espeak-ng writes them: the default vocabulary.

All that `PhonemeTokenizer.train` finds in the 13,000 sentences of the LJ Speech texts. The order gives the token ids,
so models depend on it: phones may be added at the end, never moved.
"""


_BOUNDARIES = (WORD_BOUNDARY, *MARKS)
_STRESSES = "ˈˌ"

_logger = logging.getLogger(__name__)


class PhonemeTokenizer(TextTokenizer):
    """One token for each phone with its stress ("ˈoʊ"), and one for each boundary between words.

    `phones`: the vocabulary besides padding, unknown and the boundaries; by default those of American English.
    A phone that is not in it is written with the nearest ones that are, or `<unk>`, and a warning names it once.
    """

    def __init__(self, phones: Iterable[str] = ENGLISH_PHONES) -> None:
        self.vocab = [PAD, UNK, *_BOUNDARIES, *phones]
        self._ids = {token: index for index, token in enumerate(self.vocab)}
        if len(self._ids) < len(self.vocab):
            twice = [token for token, count in Counter(self.vocab).items() if count > 1]
            raise UserError(f"the phoneme vocabulary holds {', '.join(map(repr, twice))} more than once")
        self.boundary_ids = frozenset(self._ids[mark] for mark in _BOUNDARIES)
        self._substitutes: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls, texts: Iterable[str], language: str = "en-us", extend: PhonemeTokenizer | None = None, min_count: int = 3
    ) -> Self:
        """A tokenizer for all phones that occur at least `min_count` times in `texts`.

        With `extend`, its vocabulary keeps its ids and new phones follow, so that a model can be trained on.
        """
        language = resolve_language(language)
        counts = Counter(symbol for text in texts for symbol in phonemize(normalise(text, language), language))
        known = [] if extend is None else extend.vocab[2 + len(_BOUNDARIES) :]
        new = {phone for phone, count in counts.items() if count >= min_count} - {*known, *_BOUNDARIES}
        if not known and not new:
            raise UserError(f"the texts hold no phone {min_count} times; give more text or a lower min_count")
        return cls([*known, *sorted(new)])

    def encode(self, text: str, language: str = "en-us", ends: str | None = None) -> list[int]:
        language = resolve_language(language)
        symbols = phonemize(normalise(text, language), language)
        if not symbols:
            raise NothingToSayError(text)
        if ends is not None:
            symbols[-1] = nearest_end(symbols[-1].strip(), ends) or WORD_BOUNDARY
        return [index for symbol in symbols for index in self._symbol_ids(symbol, language)]

    def decode(self, ids: Iterable[int]) -> str:
        """The phones, written together within a word: "həlˈoʊ, wˈɜːld."."""
        tokens = (self.vocab[index] for index in ids if index != self.pad_id)
        return "".join(token + " " if token in MARKS else token for token in tokens).strip()

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "phonemes", "phones": self.vocab[2 + len(_BOUNDARIES) :]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(values["phones"])

    def _symbol_ids(self, symbol: str, language: str) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        if symbol not in self._substitutes:
            pieces = self._substitute(symbol)
            self._substitutes[symbol] = [self._ids[piece] for piece in pieces]
            _logger.warning(
                "phone '%s' of language '%s' is not in the vocabulary: read as '%s'; PhonemeTokenizer.train makes a "
                "vocabulary that has it",
                symbol,
                language,
                " ".join(pieces),
            )
        return self._substitutes[symbol]

    def _substitute(self, symbol: str) -> list[str]:
        """Known phones in place of an unknown one: with another stress, else split at its characters."""
        plain = symbol.lstrip(_STRESSES)
        for candidate in (plain, *(stress + plain for stress in _STRESSES)):
            if candidate in self._ids:
                return [candidate]
        pieces, rest = [], unicodedata.normalize("NFD", symbol)
        while rest:
            prefixes = (rest[:size] for size in range(len(rest), 0, -1))
            piece = next((p for p in (*prefixes, rest[0] + "ː") if p in self._ids and p not in _BOUNDARIES), None)
            if piece is not None:
                pieces.append(piece)
            elif unicodedata.category(rest[0]) in ("Ll", "Lo", "Lu"):
                pieces.append(UNK)  # a sound; all else (length, tone, nasality) only colours the one before it
            rest = rest[len(piece) if piece and rest.startswith(piece) else 1 :]
        return pieces or [UNK]
