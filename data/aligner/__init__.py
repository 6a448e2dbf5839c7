"""The aligner: how many codec frames each phoneme token of an utterance lasts."""

from valle.data.aligner.aligner import Aligner, Alignment, train_aligner

__all__ = ["Aligner", "Alignment", "train_aligner"]
