"""Finetuning: a training job that starts from the language model of a finished model."""

from __future__ import annotations

import logging
from pathlib import Path

from valle.bundle import read_config
from valle.common.errors import UserError
from valle.common.hub import find_model
from valle.data.lm_data import LMDataModule
from valle.data.shards import TokenDataset
from valle.data.token_header import TokenHeader
from valle.tokenizers.codecs.registry import load_codec
from valle.tokenizers.text import read_text_tokenizer

log = logging.getLogger(__name__)

ENOUGH_SECONDS = 300.0
"""Of speech to finetune on; the documentation advises twice as much."""


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


def parts_beside(kind: str, model: str) -> list[str]:
    """The options of `valle export` that take all from `model` but its part `kind`."""
    parts = read_config(find_model(model))["model"]
    named = ["codec", *(part for part in ("ar", "nar", "flow", "aligner") if part != kind and parts.get(part))]
    return [f"--{part} {model}" for part in named]


def warn_of_little(data: LMDataModule, steps: int) -> None:
    """Say so when there is so little speech that finetuning learns it by heart."""
    seconds = float(TokenDataset(data.shards).seconds.sum())
    if seconds < ENOUGH_SECONDS:
        times = steps * min(data.max_seconds, seconds) / seconds
        log.warning(
            "%.0f s of speech are little to finetune on: in %d steps the model hears them %.0f times and may learn "
            "them by heart; give ten minutes, or a smaller --trainer.max_steps; 'valle clone' needs no training",
            seconds,
            steps,
            times,
        )


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
