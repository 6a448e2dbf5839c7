"""The aligner: how many codec frames each phoneme token of an utterance lasts.

A monophone HMM with Gaussian mixtures, like the first stage of the Montreal Forced Aligner (McAuliffe et al., 2017);
trained on the corpus itself, it needs no pronunciation dictionary and no model of anyone else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from valle.common.errors import UserError
from valle.common.files import writing
from valle.common.hub import find_model
from valle.data.aligner.models import (
    BOUNDARIES,
    FIXED_MODELS,
    FRAME_SECONDS,
    ChainBuilder,
    Mixtures,
    PhoneInventory,
    PhoneModels,
    cepstra,
)
from valle.data.aligner.training import Schedule, train_phone_models
from valle.data.cuts import cut_audio, cut_language, cut_text, load_cuts
from valle.tokenizers.text import PhonemeTokenizer, TextTokenizer

if TYPE_CHECKING:
    from lhotse.cut import DataCut


logger = logging.getLogger(__name__)

FORMAT = "valle-aligner"
VERSION = 1
MAX_FRAME_MISMATCH = 3  # a codec rounds the length, and may pad a little
OUTLIER = 5.0


@dataclass(frozen=True)
class Alignment:
    """`ends` [L]: where each token ends, in seconds. `score`: <= 0, see `valle.data.aligner.models.Path`."""

    ends: np.ndarray
    score: float

    def durations(self, minimum: Sequence[int], n_frames: int, frame_rate: float) -> list[int] | None:
        """Frames of each token: at least its `minimum`, `n_frames` in all; `None` if they do not fit.

        The ends are rounded to frames, then moved as little as the minimum demands.
        """
        needed = np.cumsum(minimum)
        if len(needed) == 0 or needed[-1] > n_frames:
            return None
        # What an end lies beyond the sum of the minima so far may grow along the utterance, but never shrink.
        spare = np.maximum.accumulate(np.rint(self.ends * frame_rate).astype(int) - needed)
        spare = spare.clip(0, n_frames - needed[-1])
        spare[-1] = n_frames - needed[-1]
        return np.diff(spare + needed, prepend=0).tolist()


class Aligner:
    """Aligns token sequences over `vocab` with speech at `sample_rate`, in frames of a codec at `frame_rate`."""

    def __init__(
        self,
        models: PhoneModels,
        vocab: Sequence[str],
        boundaries: Collection[str] = BOUNDARIES,
        sample_rate: int = 16000,
        frame_rate: float = 50.0,
        min_score: float = -torch.inf,
    ) -> None:
        self.models = models
        self.vocab = list(vocab)
        self.boundaries = frozenset(boundaries)
        self.sample_rate = sample_rate
        self.frame_rate = frame_rate
        self.min_score = min_score
        self._chain = ChainBuilder(models.inventory, self.vocab, self.boundaries)

    @classmethod
    def train(
        cls,
        utterances: Iterable[tuple[Sequence[int], Tensor]],
        vocab: Sequence[str],
        boundaries: Collection[str] = BOUNDARIES,
        sample_rate: int = 16000,
        frame_rate: float = 50.0,
        schedule: Schedule = Schedule(),
        min_count: int = 20,
    ) -> Aligner:
        """Trains on (tokens, waveform [S]) pairs; those without a phone or without a frame are left out.

        A phone heard less than `min_count` times gets no model of its own. Raises `UserError` when that leaves no
        phone, or when no utterance can be aligned.
        """
        tokens: list[Sequence[int]] = []
        features: list[Tensor] = []
        for ids, wav in utterances:
            x = cepstra(wav, sample_rate)
            if len(x) and any(vocab[i] not in boundaries for i in ids):
                tokens.append(ids)
                features.append(x)
        phones = [vocab[i] for ids in tokens for i in ids if vocab[i] not in boundaries]
        inventory = PhoneInventory.of(phones, min_count)
        if len(inventory.names) == len(FIXED_MODELS):
            raise UserError(f"no phone of the training data occurs {min_count} times; an aligner needs more speech")
        build = ChainBuilder(inventory, vocab, boundaries)
        training = train_phone_models(inventory, features, [build(ids) for ids in tokens], schedule)
        return cls(training.models, vocab, boundaries, sample_rate, frame_rate, _lowest_usual(training.scores))

    def adapted(
        self,
        vocab: Sequence[str] | None = None,
        sample_rate: int | None = None,
        frame_rate: float | None = None,
        min_score: float | None = None,
    ) -> Aligner:
        """The same models for other token ids, audio at another rate (16 kHz or more), another codec or strictness.

        Phones that the training did not know borrow the model of the most similar name.
        """
        return Aligner(
            self.models,
            self.vocab if vocab is None else vocab,
            self.boundaries,
            sample_rate or self.sample_rate,
            frame_rate or self.frame_rate,
            self.min_score if min_score is None else min_score,
        )

    def align(
        self, phonemes: Sequence[Sequence[int]], wavs: Sequence[Tensor], n_frames: Sequence[int]
    ) -> list[list[int] | None]:
        """Durations of the tokens of each utterance, in codec frames, summing to its `n_frames`.

        `phonemes`: token ids; `wavs`: [S] each. A phone lasts at least one frame, a boundary token may last none.
        `None` for an utterance that is too short for its phones, or whose tokens are hardly what is spoken (its score
        is below `min_score`). Raises `UserError` when `n_frames` are not those of this aligner's frame rate.
        """
        for wav, n in zip(wavs, n_frames, strict=True):
            seconds = wav.numel() / self.sample_rate
            if abs(n - seconds * self.frame_rate) > MAX_FRAME_MISMATCH:
                raise UserError(
                    f"{n} codec frames for {seconds:.2f} s of audio, but the aligner is set to {self.frame_rate:g} "
                    f"frames per second at {self.sample_rate} Hz; set it to the codec's rates"
                )
        return [
            None
            if alignment is None or alignment.score < self.min_score
            else alignment.durations([0 if self._chain.is_boundary[i] else 1 for i in tokens], n, self.frame_rate)
            for alignment, tokens, n in zip(self.alignments(phonemes, wavs), phonemes, n_frames, strict=True)
        ]

    def alignments(self, phonemes: Sequence[Sequence[int]], wavs: Sequence[Tensor]) -> list[Alignment | None]:
        """Where each token of each utterance ends; `None` where the speech is too short for its tokens."""
        chains = [self._chain(tokens) for tokens in phonemes]
        features = [cepstra(wav, self.sample_rate) for wav in wavs]
        results: list[Alignment | None] = [None] * len(phonemes)
        for i, path in self.models.decode(features, chains):
            if path is not None:
                frames = torch.bincount(chains[i].owners[path.states], minlength=len(phonemes[i]))
                results[i] = Alignment(frames.cumsum(0).numpy() * FRAME_SECONDS, path.score)
        return results

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the durations depend on."""
        content = hashlib.sha256(json.dumps(self._config()).encode())
        for tensor in self._tensors().values():
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file; what is not a tensor stands in its metadata as JSON."""
        metadata = {"format": FORMAT, "version": str(VERSION), "config": json.dumps(self._config())}
        with writing(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in self._tensors().items()}, path, metadata)

    def _tensors(self) -> dict[str, Tensor]:
        models = self.models
        return {
            "log_weights": models.mixtures.log_weights,
            "means": models.mixtures.means,
            "variances": models.mixtures.variances,
            "stay": models.stay,
            "pauses": models.pauses,
        }

    def _config(self) -> dict[str, Any]:
        return {
            "models": self.models.inventory.names,
            "vocab": self.vocab,
            "boundaries": sorted(self.boundaries),
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "min_score": self.min_score,
        }

    @classmethod
    def load(cls, path: str | Path) -> Aligner:
        """Reads what `save` wrote, or the aligner of a model (see `find_model`).

        Raises `UserError` when it is missing or something else.
        """
        path = find_model(path)
        if path.is_dir():
            path = path / "aligner.safetensors"
        if not path.is_file():
            raise UserError(f"aligner not found: {path}; train one with 'valle train aligner'")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise UserError(f"{path} is no safetensors file ({error}); give an aligner") from error
        if (metadata.get("format"), metadata.get("version")) != (FORMAT, str(VERSION)):
            raise UserError(f"{path} is no aligner of version {VERSION}; train one with 'valle train aligner'")
        config, tensors = json.loads(metadata["config"]), load_file(path)
        models = PhoneModels(
            PhoneInventory(tuple(config.pop("models"))),
            Mixtures(tensors["log_weights"], tensors["means"], tensors["variances"]),
            tensors["stay"],
            tensors["pauses"],
        )
        return cls(models, **config)


def _lowest_usual(scores: Sequence[float]) -> float:
    """The score below which an utterance is an outlier: `OUTLIER` robust standard deviations below the median."""
    median = np.median(scores)
    deviation = 1.4826 * np.median(np.abs(np.asarray(scores) - median))
    return float(median - OUTLIER * deviation)


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
