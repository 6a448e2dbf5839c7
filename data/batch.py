"""The batch that language models are trained on.

Shapes: B utterances, L phonemes, n_q quantizers, T codec frames, G time-invariant codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.data.shards import TokenizedUtterance
from valle.tokenizers.codecs.base import frame_mask


@dataclass
class LMBatch:
    """Padded utterances.

    phonemes:         LongTensor [B, L], 0 at and beyond an utterance's phoneme length
    phoneme_lengths:  LongTensor [B]
    codes:            LongTensor [B, n_q, T], 0 at and beyond an utterance's code length
    code_lengths:     LongTensor [B], frames
    time_invariant:   LongTensor [B, G], or None where the codec has none
    durations:        LongTensor [B, L], frames of each phoneme, their sum is the code length; None for unaligned data
    """

    phonemes: Tensor
    phoneme_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    time_invariant: Tensor | None = None
    durations: Tensor | None = None

    def __post_init__(self) -> None:
        size = len(self.phonemes)
        shapes = (
            ("phonemes", self.phonemes, "[B, L]", self.phonemes.dim() == 2 and size > 0),
            ("phoneme_lengths", self.phoneme_lengths, "[B]", self.phoneme_lengths.shape == (size,)),
            ("codes", self.codes, "[B, n_q, T]", self.codes.dim() == 3 and len(self.codes) == size),
            ("code_lengths", self.code_lengths, "[B]", self.code_lengths.shape == (size,)),
            ("time_invariant", self.time_invariant, "[B, G]", _rows(self.time_invariant, size)),
            (
                "durations",
                self.durations,
                "[B, L]",
                self.durations is None or self.durations.shape == self.phonemes.shape,
            ),
        )
        for name, tensor, shape, fits in shapes:
            if tensor is None:
                continue
            if tensor.dtype != torch.long:
                raise ValueError(f"{name} must be a LongTensor, got {tensor.dtype}")
            if not fits:
                raise ValueError(f"{name} must be {shape} with B = {size}, got {tuple(tensor.shape)}")
        # Values are looked at on the CPU, where batches are made: on a GPU the look would wait for the device.
        if self.phonemes.device.type == "cpu":
            self._check_values()

    def _check_values(self) -> None:
        for name, lengths, padded in (
            ("phoneme_lengths", self.phoneme_lengths, self.phonemes),
            ("code_lengths", self.code_lengths, self.codes),
        ):
            if not 1 <= int(lengths.min()) <= int(lengths.max()) <= padded.shape[-1]:
                raise ValueError(f"{name} must be in 1..{padded.shape[-1]}, got {lengths.tolist()}")
        if self.phonemes.masked_fill(frame_mask(self.phoneme_lengths, self.phonemes.shape[1]), 0).any():
            raise ValueError("phonemes must be 0 beyond an utterance's length")
        if self.codes.masked_fill(frame_mask(self.code_lengths, self.codes.shape[2])[:, None], 0).any():
            raise ValueError("codes must be 0 beyond an utterance's length")
        if self.durations is not None and not torch.equal(self.durations.sum(dim=1), self.code_lengths):
            raise ValueError("durations must sum to the code lengths")

    def __len__(self) -> int:
        return len(self.phonemes)

    def to(self, device: torch.device | str) -> LMBatch:
        """The batch on a device."""
        return LMBatch(*(None if t is None else t.to(device, non_blocking=True) for t in vars(self).values()))  # type: ignore[arg-type]


def _rows(tensor: Tensor | None, size: int) -> bool:
    return tensor is None or (tensor.dim() == 2 and len(tensor) == size)


def collate(utterances: Sequence[TokenizedUtterance]) -> LMBatch:
    """Pad utterances into a batch. Durations and time-invariant codes must be there for all or for none."""
    time_invariant = [u.time_invariant for u in utterances if u.time_invariant is not None]
    durations = [u.durations for u in utterances if u.durations is not None]
    for name, given in (("time-invariant codes", time_invariant), ("durations", durations)):
        if len(given) not in (0, len(utterances)):
            raise ValueError(f"{len(given)} of {len(utterances)} utterances have {name}; all or none must")
    codes = pad_sequence([u.codes.T for u in utterances], batch_first=True)
    return LMBatch(
        phonemes=pad_sequence([u.phonemes for u in utterances], batch_first=True),
        phoneme_lengths=torch.tensor([len(u.phonemes) for u in utterances]),
        codes=codes.transpose(1, 2).contiguous(),
        code_lengths=torch.tensor([u.codes.shape[1] for u in utterances]),
        time_invariant=torch.stack(time_invariant) if time_invariant else None,
        durations=pad_sequence(durations, batch_first=True) if durations else None,
    )
