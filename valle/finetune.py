"""Finetuning: a training job that starts from the language model of a finished model."""

from __future__ import annotations

from pathlib import Path

from valle.bundle import read_config
from valle.data.token_header import TokenHeader
from valle.tokenizers.codecs.registry import load_codec
from valle.tokenizers.errors import UserError
from valle.tokenizers.hub import find_model
from valle.tokenizers.text import read_text_tokenizer


def start_options(kind: str, model: str, facts: set[str]) -> list[str]:
    """The options of `valle train` that start from `model` (folder, Hub id or "embedded") and take its shape.

    `facts` are the settings that the training data decide.
    """
    folder = find_model(model)
    shape = read_config(folder)["model"].get(kind)
    if shape is None:
        raise UserError(f"--model {model} has no {kind} model")
    settings = {name: value for name, value in shape.items() if name not in facts and value is not None}
    words = [f"--model.config.{name}={str(value).lower()}" for name, value in settings.items()]
    return [*words, f"--model.start.model={folder}"]


def check_tokens(folder: str | Path, tokens: TokenHeader) -> None:
    """Raise `UserError` when the tokens are not in the language of the model: other codes, or other symbols."""
    text = read_text_tokenizer(folder)
    if text.fingerprint != tokens.text_tokenizer_hash:
        raise UserError(
            f"the training data have another text tokenizer than {folder}; tokenize --text-tokenizer {folder}"
        )
    if load_codec(folder).fingerprint != tokens.codec_hash:
        raise UserError(
            f"the training data were made with another codec than that of {folder}; tokenize --codec {folder}"
        )
