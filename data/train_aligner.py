"""Training an aligner on a prepared corpus."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from valle.common.errors import UserError
from valle.data.aligner import Aligner
from valle.data.cuts import cut_audio, cut_language, cut_text, load_cuts
from valle.tokenizers.text import PhonemeTokenizer, TextTokenizer

if TYPE_CHECKING:
    from lhotse.cut import DataCut

logger = logging.getLogger(__name__)


def train_aligner(
    cuts: str | Path,
    text_tokenizer: TextTokenizer,
    out: str | Path,
    *,
    sample_rate: int = 16000,
    frame_rate: float = 50.0,
    max_hours: float = 10.0,
    seed: int = 0,
) -> Aligner:
    """Trains on the cuts that have a text, or a random `max_hours` of them, and saves to `out` (.safetensors).

    cuts:          lhotse cut manifest
    frame_rate:    of the codec whose frames the durations count
    max_hours:     phone models learn little from more; training takes some 100 s of one core, and 60 MB, per hour

    Raises `UserError` for tokens that are no phones, and when no cut has a text or none can be aligned.
    """
    if not isinstance(text_tokenizer, PhonemeTokenizer):
        raise UserError("an aligner needs the tokens to be phones; give it a text tokenizer of kind 'phonemes'")
    with_text = [cut for cut in load_cuts(cuts) if cut_text(cut)]
    if not with_text:
        raise UserError(f"no cut of {cuts} has a text, so there is nothing to align; prepare the corpus with its texts")
    random.Random(seed).shuffle(with_text)
    utterances = _utterances(with_text, text_tokenizer, sample_rate, 3600 * max_hours)
    boundaries = [text_tokenizer.vocab[i] for i in text_tokenizer.boundary_ids]
    aligner = Aligner.train(utterances, text_tokenizer.vocab, boundaries, sample_rate, frame_rate)
    aligner.save(out)
    return aligner


def _utterances(
    cuts: list[DataCut], text_tokenizer: TextTokenizer, sample_rate: int, seconds: float
) -> Iterator[tuple[list[int], Tensor]]:
    for cut in cuts:
        if seconds <= 0:
            return
        seconds -= cut.duration
        try:
            yield text_tokenizer.encode(cut_text(cut), cut_language(cut)), cut_audio(cut, sample_rate)
        except UserError as error:
            logger.warning("left out of the aligner's training: '%s' (%s)", cut.id, error)
