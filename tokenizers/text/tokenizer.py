"""What every text tokenizer is: `TextTokenizer`."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self

from valle.common.errors import UserError

PAD, UNK = "<pad>", "<unk>"


class TextTokenizer(ABC):
    """Text to token ids and back. `vocab[id]` is the token of an id; 0 is padding, 1 an unknown token.

    `boundary_ids`: tokens between words (word boundary, punctuation), which may last zero frames and take up silence.
    """

    pad_id = 0
    unk_id = 1
    vocab: list[str]
    boundary_ids: frozenset[int]

    @abstractmethod
    def encode(self, text: str, language: str = "en-us", ends: str | None = None) -> list[int]:
        """The ids of `text` as it is written (it is normalised here).

        ends: the marks that they may end in; another end, or none, becomes the nearest of them. None: any
        Raises `UserError` for a language that nobody knows, `NothingToSayError` for text with nothing to say in it.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """A readable form of `ids`; padding is left out."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """All of the tokenizer, ready for JSON; `text_tokenizer_from_dict` builds it again."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The tokenizer that `to_dict` described."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ between tokenizers which give different ids."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class NothingToSayError(UserError):
    """The text has nothing speakable in it."""

    def __init__(self, text: str) -> None:
        shown = text if len(text) <= 40 else text[:37] + "..."
        super().__init__(f"there is nothing to say in the text {shown!r}; give it at least one word")
