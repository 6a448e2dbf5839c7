"""Text tokenizers by kind, for what was saved with a model or a corpus."""

from __future__ import annotations

from typing import Any

from valle.tokenizers.errors import UserError
from valle.tokenizers.text.bpe_tokenizer import BPETokenizer
from valle.tokenizers.text.phoneme_tokenizer import PhonemeTokenizer
from valle.tokenizers.text.tokenizer import TextTokenizer

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
