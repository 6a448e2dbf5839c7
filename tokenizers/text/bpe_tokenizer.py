"""Byte-pair encoding with SentencePiece: `BPETokenizer`, for languages or scripts without a phonemizer."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable
from typing import Any, Self

import sentencepiece

from valle.common.errors import UserError
from valle.tokenizers.text.characters import MARKS, nearest_end, tidy
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.tokenizer import PAD, UNK, NothingToSayError, TextTokenizer

_logger = logging.getLogger(__name__)


class BPETokenizer(TextTokenizer):
    """Pieces of lower-cased, normalised text. No piece is a boundary, so alignments need phonemes instead.

    `model`: a serialised SentencePiece model, as `train` makes it.
    """

    boundary_ids = frozenset()

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError("the SentencePiece model is damaged; train it again with BPETokenizer.train") from error
        self.vocab = [self._processor.IdToPiece(index) for index in range(self._processor.GetPieceSize())]
        if self.vocab[:2] != [PAD, UNK]:
            raise UserError(
                f"the SentencePiece model must have {PAD} as 0 and {UNK} as 1; make it with BPETokenizer.train"
            )
        self._warned: set[str] = set()

    @classmethod
    def train(cls, texts: Iterable[str], language: str = "en-us", vocab_size: int = 1000) -> Self:
        """Learn `vocab_size` pieces from `texts`; all their characters are covered."""
        lines = [line for text in texts if (line := normalise(text, language))]
        if not lines:
            raise UserError("there is no text to train a BPE vocabulary on")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=1.0,
                required_chars=MARKS + "'-",
                normalization_rule_name="nmt_nfkc_cf",  # capitals sound the same
                pad_id=cls.pad_id,
                unk_id=cls.unk_id,
                bos_id=-1,
                eos_id=-1,
                pad_piece=PAD,
                unk_piece=UNK,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = str(error).rpartition("] ")[2].strip() or str(error)
            raise UserError(f"cannot train a BPE vocabulary of {vocab_size} on these texts: {reason}") from error
        return cls(model.getvalue())

    def encode(self, text: str, language: str = "en-us", ends: str | None = None) -> list[int]:
        spoken = normalise(text, language)
        if not any(character.isalnum() for character in spoken):
            raise NothingToSayError(text)
        if ends is not None:
            words = spoken.rstrip(MARKS + " ")
            spoken = tidy(words + nearest_end(spoken[len(words) :].strip(), ends))
        ids = self._processor.EncodeAsIds(spoken)
        if self.unk_id in ids:
            pieces = zip(ids, self._processor.EncodeAsPieces(spoken), strict=True)
            unknown = {piece for index, piece in pieces if index == self.unk_id}
            for piece in sorted(unknown - self._warned):
                _logger.warning("'%s' is not in the BPE vocabulary: read as %s", piece, UNK)
            self._warned |= unknown
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.DecodeIds([index for index in ids if index != self.pad_id])

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bpe", "model": base64.b64encode(self._model).decode("ascii")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(base64.b64decode(values["model"]))

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._model,)
