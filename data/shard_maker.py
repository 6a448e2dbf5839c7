"""One shard of tokens from a list of cuts: read, phonemise, encode, align."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from valle.common.errors import UserError
from valle.data.cuts import cut_audio, cut_language, cut_speaker, cut_text
from valle.data.shards import Drop, TokenizedUtterance, shard_path, write_shard
from valle.data.token_header import TokenHeader
from valle.tokenizers.codecs.base import SpeechCodec, SpeechCodes
from valle.tokenizers.codecs.disguise import Disguise
from valle.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from lhotse.cut import DataCut

_READERS = 4
"""Threads that decode audio."""
DISGUISE_TONE = 0.4
"""How far the tone of a disguise goes, see `Disguise.draw`."""


class DurationAligner(Protocol):
    """What finds the durations; `valle.data.aligner.Aligner` is one."""

    vocab: list[str]
    """The tokens that the phoneme ids stand for."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the durations could."""

    def align(
        self, phonemes: Sequence[Sequence[int]], wavs: Sequence[Tensor], n_frames: Sequence[int]
    ) -> list[list[int] | None]:
        """Frames of each phoneme, summing to `n_frames`, of waveforms [S] at the codec's rate; None: not alignable."""


def rounded_seconds(cut: DataCut) -> int:
    """A cut's share of the progress bar; whole numbers, so that the shares add up to the total."""
    return round(cut.duration)


class ShardMaker:
    """Makes one shard after another.

    Utterances of similar duration are encoded together, at most `batch_seconds` of them when padded. What cannot be
    tokenized is left out and accounted for in the shard.
    """

    def __init__(
        self,
        out: Path,
        header: TokenHeader,
        codec: SpeechCodec,
        text_tokenizer: TextTokenizer,
        aligner: DurationAligner | None,
        batch_seconds: float,
    ) -> None:
        self.out = out
        self.header = header
        self.codec = codec
        self.device = next(codec.parameters()).device
        self.text_tokenizer = text_tokenizer
        self.aligner = aligner
        self.batch_seconds = batch_seconds
        self._random = torch.Generator()

    def make(self, index: int, cuts: list[DataCut], progress: Callable[[int], object]) -> None:
        """Write shard `index`; `progress` is given the seconds of each batch that is done."""
        self._random.manual_seed(index)
        dropped: list[Drop] = []
        done: dict[str, TokenizedUtterance] = {}
        for batch in self._batches(cuts):
            done.update((u.id, u) for u in self._tokenized(batch, dropped))
            progress(sum(map(rounded_seconds, batch)))
        in_order = [done[c.id] for c in cuts if c.id in done]
        write_shard(shard_path(self.out, index), self.header, in_order, dropped)

    def _batches(self, cuts: list[DataCut]) -> Iterator[list[DataCut]]:
        batch: list[DataCut] = []
        for cut in sorted(cuts, key=lambda c: (c.duration, c.id)):
            if batch and cut.duration * (len(batch) + 1) > self.batch_seconds:
                yield batch
                batch = []
            batch.append(cut)
        if batch:
            yield batch

    def _tokenized(self, cuts: list[DataCut], dropped: list[Drop]) -> Iterator[TokenizedUtterance]:
        """The utterances of one batch; those that fail are added to `dropped`."""
        spoken = []
        for cut in cuts:  # one after the other: espeak-ng is not made for threads
            phonemes = self._phonemes(cut)
            if isinstance(phonemes, Drop):
                dropped.append(phonemes)
            else:
                spoken.append((cut, phonemes))
        with ThreadPool(_READERS) as pool:
            wavs = pool.map(self._audio, [cut for cut, _ in spoken])
        dropped += [wav for wav in wavs if isinstance(wav, Drop)]
        rows = [(cut, ids, wav) for (cut, ids), wav in zip(spoken, wavs, strict=True) if not isinstance(wav, Drop)]
        if rows:
            yield from self._encoded(rows, dropped)

    def _encoded(
        self, rows: list[tuple[DataCut, list[int], Tensor]], dropped: list[Drop]
    ) -> Iterator[TokenizedUtterance]:
        cuts, phonemes, wavs = (list(column) for column in zip(*rows, strict=True))
        codes = self._encode(wavs)
        durations: Sequence[list[int] | None] = [None] * len(cuts)
        if not self.header.has_text:
            durations = [[frames] for frames in codes.lengths.tolist()]
        elif self.aligner is not None:
            durations = self.aligner.align(phonemes, wavs, codes.lengths.tolist())
        for i, cut in enumerate(cuts):
            duration = durations[i]
            if self.aligner is not None and duration is None:
                dropped.append(
                    Drop(cut.id, "not aligned", "the text is too long for the speech, or not what is spoken")
                )
                continue
            one = codes[i]
            yield TokenizedUtterance(
                id=cut.id,
                speaker=cut_speaker(cut) if self.header.speed == 1 else f"{cut_speaker(cut)}@{self.header.speed:g}",
                text=cut_text(cut),
                phonemes=torch.tensor(phonemes[i]),
                codes=one.codes[0],
                time_invariant=None if one.time_invariant is None else one.time_invariant[0],
                durations=None if duration is None else torch.tensor(duration),
                language=cut_language(cut),
            )

    def _phonemes(self, cut: DataCut) -> list[int] | Drop:
        if not self.header.has_text:
            return [self.text_tokenizer.unk_id]
        text = cut_text(cut)
        if not text:
            return Drop(cut.id, "no text", "the cut has no transcript")
        try:
            return self.text_tokenizer.encode(text, cut_language(cut))
        except UserError as error:
            return Drop(cut.id, "text", str(error))

    def _audio(self, cut: DataCut) -> Tensor | Drop:
        try:
            return cut_audio(cut, self.header.codec.sample_rate, self.header.speed)
        except UserError as error:
            return Drop(cut.id, "unreadable", str(error))

    @torch.inference_mode()
    def _encode(self, wavs: list[Tensor]) -> SpeechCodes:
        padded = pad_sequence(wavs, batch_first=True)[:, None]
        lengths = torch.tensor([len(wav) for wav in wavs])
        padded, lengths = padded.to(self.device), lengths.to(self.device)
        if self.header.disguise == 1:
            return self.codec.encode(padded, lengths).to("cpu")
        everyone = torch.ones(len(wavs), dtype=torch.bool)
        disguise = Disguise.draw(everyone, self.header.disguise, DISGUISE_TONE, self._random).to(self.device)
        return self.codec.encode_disguised(padded, lengths, disguise).to("cpu")
