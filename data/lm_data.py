"""Training data of the language models: folders of tokens as a Lightning data module."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from valle.common.errors import UserError
from valle.data.batch import LMBatch, collate
from valle.data.loader import DurationBuckets, Request, ResumableLoader, similar_batches
from valle.data.shards import TokenDataset, TokenHeader, TokenizedUtterance
from valle.data.split import held_out
from valle.tokenizers.text import TextTokenizer, read_text_tokenizer
from valle.tokenizers.text.characters import MARKS, final_mark

log = logging.getLogger(__name__)

_ENOUGH_ENDS = 500


class RequestedBatches(Dataset):
    """`dataset[request]` is the `LMBatch` of a request (see `valle.data.loader`)."""

    def __init__(self, tokens: TokenDataset, text_tokenizer: TextTokenizer | None = None) -> None:
        """`text_tokenizer` replaces that of the shards."""
        self.tokens = tokens
        self.text_tokenizer = text_tokenizer

    def __getitem__(self, request: Request) -> LMBatch:
        return collate([self._utterance(index, lender) for index, lender in request])

    def _utterance(self, index: int, lender: int) -> TokenizedUtterance:
        utterance = self.tokens[index]
        if lender != index:
            utterance = replace(utterance, time_invariant=self.tokens[lender].time_invariant)
        if self.text_tokenizer is not None:
            phonemes = torch.tensor(self.text_tokenizer.encode(utterance.text, utterance.language))
            utterance = replace(utterance, phonemes=phonemes, durations=None)
        return utterance


class LMDataModule(LightningDataModule):
    """Tokenized corpora for `valle train ar` and `valle train nar`.

    Parameters
    ----------
    shards:                 folders made by `valle tokenize` with the same codec, text tokenizer and aligner
    max_seconds:            padded seconds of speech in a batch (of each rank); the paper has 160
    min_utterance_seconds, max_utterance_seconds:
                            other utterances are left out
    swap_time_invariant:    probability that an utterance's time-invariant codes come from another utterance of its
                            speaker, as in cloning
    text_tokenizer:         JSON file of another text tokenizer than that of the shards, such as one of
                            `valle prepare bpe`; texts are encoded anew as they are needed, and have no durations
    val_shards:             folders for validation; else `val_fraction` of the data is held out
    val_fraction, val_by:   share of the data held out, by "utterance" (the same voices) or by "speaker" (new voices)

    Which utterances are held out depends on their names alone. Lightning keeps the loader's position in checkpoints:
    a resumed run sees the batches that an uninterrupted one would.
    """

    def __init__(
        self,
        shards: list[str],
        max_seconds: float = 160.0,
        min_utterance_seconds: float = 0.5,
        max_utterance_seconds: float = 20.0,
        swap_time_invariant: float = 0.5,
        seed: int = 0,
        num_workers: int = 0,
        text_tokenizer: str | None = None,
        val_shards: list[str] | None = None,
        val_fraction: float = 0.01,
        val_by: Literal["utterance", "speaker"] = "utterance",
    ) -> None:
        super().__init__()
        if not shards:
            raise UserError("data.shards names no folder of tokens; 'valle tokenize' makes them")
        if max_utterance_seconds > max_seconds:
            raise UserError(
                f"max_utterance_seconds ({max_utterance_seconds:g}) exceeds max_seconds of a batch ({max_seconds:g})"
            )
        for name, share in (("swap_time_invariant", swap_time_invariant), ("val_fraction", val_fraction)):
            if not 0 <= share <= 1:
                raise UserError(f"{name} is a share, 0 to 1, got {share}")
        self.shards = shards
        self.max_seconds = max_seconds
        self.min_utterance_seconds = min_utterance_seconds
        self.max_utterance_seconds = max_utterance_seconds
        self.swap_time_invariant = swap_time_invariant
        self.seed = seed
        self.num_workers = num_workers
        self.text_tokenizer = None if text_tokenizer is None else read_text_tokenizer(text_tokenizer)
        self.val_shards = val_shards
        self.val_fraction = val_fraction
        self.val_by = val_by

    @property
    def header(self) -> TokenHeader:
        """What the tokens were made with; there before `setup`."""
        header = TokenHeader.read(self.shards[0])
        if self.text_tokenizer is None:
            return header
        text = self.text_tokenizer
        return replace(header, aligner_hash=None, text_tokenizer=text.to_dict(), text_tokenizer_hash=text.fingerprint)

    @cached_property
    def ends(self) -> str:
        """The marks that enough texts end in for a model to know them: 1 % of all, or 500. There after `setup`."""
        counts = Counter(map(final_mark, self.tokens.texts()))
        enough = min(_ENOUGH_ENDS, counts.total() / 100)
        return "".join(mark for mark in MARKS if counts[mark] and counts[mark] >= enough)

    def setup(self, stage: str | None = None) -> None:
        self.tokens = TokenDataset(self.shards)
        train = self._of_fitting_length(self.tokens)
        if self.val_shards:
            self.val_tokens = TokenDataset(self.val_shards)
            self.tokens.header.check_mixes_with(self.val_tokens.header, "the training data", "val_shards")
            self.val_utterances = self._of_fitting_length(self.val_tokens)
        else:
            self.val_tokens = self.tokens
            validation = self._validation(train)
            train, self.val_utterances = train[~validation], train[validation]
            if self.val_fraction and not len(self.val_utterances):
                log.warning("val_fraction %g holds out no utterance: there is no validation", self.val_fraction)
        if not len(train):
            raise UserError(f"{', '.join(self.shards)}: no utterance is left to train on; see val_fraction")
        self.train_utterances = train

    def train_dataloader(self) -> ResumableLoader:
        train = self.train_utterances
        plan = DurationBuckets(
            train,
            self.tokens.frames[train],
            [self.tokens.speakers[i] for i in train],
            max_frames=self._max_frames,
            seed=self.seed,
            swap=self.swap_time_invariant,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        if not len(plan.epoch(0)):
            raise UserError(
                f"there are fewer batches than ranks ({plan.world_size}): use fewer devices, or max_seconds"
            )
        return ResumableLoader(RequestedBatches(self.tokens, self.text_tokenizer), plan, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        frames = self.val_tokens.frames[self.val_utterances]
        batches = similar_batches(np.argsort(frames, kind="stable"), frames, self._max_frames)
        requests = [[(int(self.val_utterances[i]),) * 2 for i in batch] for batch in batches]
        return DataLoader(
            requests,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=RequestedBatches(self.val_tokens, self.text_tokenizer).__getitem__,
            num_workers=self.num_workers,
        )

    @property
    def _max_frames(self) -> int:
        return int(self.max_seconds * self.tokens.header.codec.frame_rate)

    def _of_fitting_length(self, tokens: TokenDataset) -> np.ndarray:
        """Indices of the utterances that are neither too short nor too long."""
        fits = (tokens.seconds >= self.min_utterance_seconds) & (tokens.seconds <= self.max_utterance_seconds)
        if not fits.any():
            raise UserError(
                f"no utterance lasts {self.min_utterance_seconds:g} to {self.max_utterance_seconds:g} s "
                f"(they last {tokens.seconds.min():.1f} to {tokens.seconds.max():.1f} s)"
            )
        if not fits.all():
            log.info("%d of %d utterances are too short or too long and are left out", (~fits).sum(), len(fits))
        return np.flatnonzero(fits)

    def _validation(self, utterances: np.ndarray) -> np.ndarray:
        """Mask over `utterances`, True for validation."""
        speakers, ids = ([names[i] for i in utterances] for names in (self.tokens.speakers, self.tokens.ids))
        return held_out(self.val_by, ids, speakers, self.tokens.seconds[utterances], self.val_fraction)
