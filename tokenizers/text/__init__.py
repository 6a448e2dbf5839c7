"""From written text to token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.tokenizers.text.bpe_tokenizer import BPETokenizer
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.phoneme_tokenizer import PhonemeTokenizer
from valle.tokenizers.text.phonemes import phonemize, resolve_language, supported_languages
from valle.tokenizers.text.sentences import split_sentences
from valle.tokenizers.text.tokenizer import NothingToSayError, TextTokenizer

__all__ = [
    "BPETokenizer",
    "NothingToSayError",
    "PhonemeTokenizer",
    "TextTokenizer",
    "normalise",
    "phonemize",
    "read_text_tokenizer",
    "resolve_language",
    "split_sentences",
    "supported_languages",
    "text_tokenizer_from_dict",
]

_KINDS: dict[str, type[TextTokenizer]] = {"phonemes": PhonemeTokenizer, "bpe": BPETokenizer}


def text_tokenizer_from_dict(values: dict[str, Any]) -> TextTokenizer:
    """The tokenizer whose `to_dict` gave `values`. Raises `UserError` for what is none."""
    kind = values.get("kind")
    if kind not in _KINDS:
        raise UserError(f"unknown kind of text tokenizer {kind!r}; known kinds: {', '.join(_KINDS)}")
    try:
        return _KINDS[kind].from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the description of the '{kind}' text tokenizer is damaged: {error!r}") from error


def read_text_tokenizer(path: str | Path) -> TextTokenizer:
    """The tokenizer in a JSON file, such as `valle prepare bpe` writes, or that of a model (see `find_model`)."""
    path = find_model(path)
    try:
        if path.is_dir():
            return text_tokenizer_from_dict(json.loads((path / "config.json").read_bytes())["model"]["text_tokenizer"])
        return text_tokenizer_from_dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"text tokenizer {path} cannot be read: {error}") from error
