"""Tokenized speech on disk: a folder with `header.json` and shards, and the dataset that reads such folders.

A shard is one safetensors file, for N utterances with L phonemes and T frames in total:

    phonemes           int32 [L]       durations (if aligned)      int32 [L]
    phoneme_offsets    int64 [N + 1]   frame_offsets               int64 [N + 1]
    codes              int16 [n_q, T]  time_invariant (if any)     int16 [N, G]

(int32 codes where a codebook is too large for int16). Its metadata holds, as JSON, `utterances`
({id, speaker, text, language, frames} each) and `dropped` ({id, reason, detail} each).
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import Dataset

from valle.common.errors import UserError
from valle.common.files import whole
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodec
from valle.tokenizers.text import TextTokenizer

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TokenHeader:
    """What the tokens of a folder were made with."""

    codec: CodecSpec
    codec_hash: str
    text_tokenizer: dict[str, Any]
    text_tokenizer_hash: str
    aligner_hash: str | None
    """None: the tokens have no durations."""
    cuts_hash: str
    utterances: int
    """Cuts that were given to the tokenizer, dropped ones included."""
    shard_size: int
    """Cuts of each shard; the last may have fewer."""
    speed: float = 1.0
    """At which the recordings were played; see `valle.data.tokenize`."""
    disguise: float = 1.0
    """Not 1: quantizer 1 heard disguises of up to this factor (`SpeechCodec.encode_disguised`); for flows only."""
    has_text: bool = True
    """False: each utterance is one unknown token, for models that do not read."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def made_with(
        cls,
        codec: SpeechCodec,
        text: TextTokenizer,
        aligner_hash: str | None,
        cuts_hash: str,
        utterances: int,
        shard_size: int,
        speed: float = 1.0,
        disguise: float = 1.0,
        has_text: bool = True,
    ) -> TokenHeader:
        """The header of tokens that this codec and this text tokenizer make."""
        return cls(
            codec=codec.spec,
            codec_hash=codec.fingerprint,
            text_tokenizer=text.to_dict(),
            text_tokenizer_hash=text.fingerprint,
            aligner_hash=aligner_hash,
            cuts_hash=cuts_hash,
            utterances=utterances,
            shard_size=shard_size,
            speed=speed,
            disguise=disguise,
            has_text=has_text,
        )

    @property
    def shards(self) -> int:
        return -(-self.utterances // self.shard_size)

    @classmethod
    def read(cls, folder: str | Path) -> TokenHeader:
        """The header of a folder of shards. Raises `UserError` when it is none that this program reads."""
        path = Path(folder) / "header.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values["format_version"]
            if version != FORMAT_VERSION:
                raise UserError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
            return cls(**{**values, "codec": CodecSpec.from_dict(values["codec"])})
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no tokens (no header.json); make them with 'valle tokenize'") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not describe tokens: {error!r}; tokenize into a new folder") from error

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        with whole(folder / "header.json") as part:
            part.write_text(text, encoding="utf-8")

    def check_mixes_with(self, other: TokenHeader, mine: str, others: str) -> None:
        """Raise `UserError` naming both when the two cannot be trained on together; `mine`, `others` say where."""
        facts = (
            ("codec", self.codec.name, self.codec_hash, other.codec.name, other.codec_hash),
            ("text tokenizer", self._text_kind, self.text_tokenizer_hash, other._text_kind, other.text_tokenizer_hash),
            ("aligner", "", self.aligner_hash, "", other.aligner_hash),
        )
        for what, name, key, other_name, other_key in facts:
            if key != other_key:
                raise UserError(
                    f"{mine} and {others} have different {what}s: {_called(name, key)} and "
                    f"{_called(other_name, other_key)}; tokenize one of them again, into a new folder"
                )
        if self.codec != other.codec:
            raise UserError(f"{mine} and {others} have different codecs: {self.codec} and {other.codec}")

    @property
    def _text_kind(self) -> str:
        return str(self.text_tokenizer.get("kind", ""))


def _called(name: str, key: str | None) -> str:
    return "none" if key is None else f"{name} {key}".strip()


@dataclass
class TokenizedUtterance:
    """One utterance as tokens.

    phonemes:        LongTensor [L]
    codes:           LongTensor [n_q, T]
    time_invariant:  LongTensor [G], or None where the codec has none
    durations:       LongTensor [L], frames of each phoneme, or None where the data are not aligned
    """

    id: str
    speaker: str
    text: str
    phonemes: Tensor
    codes: Tensor
    time_invariant: Tensor | None = None
    durations: Tensor | None = None
    language: str = "en-us"


@dataclass(frozen=True)
class Drop:
    """A cut that could not be tokenized; `reason` is a short fixed word."""

    id: str
    reason: str
    detail: str


def shard_path(folder: str | Path, index: int) -> Path:
    """Where shard `index` of the set in `folder` is."""
    return Path(folder) / f"shard-{index:06d}.safetensors"


def write_shard(
    path: Path, header: TokenHeader, utterances: Sequence[TokenizedUtterance], dropped: Sequence[Drop]
) -> None:
    """Write a shard; it appears whole or not at all."""
    spec = header.codec
    small = torch.int16 if max(spec.codebook_size, spec.time_invariant_size) <= 2**15 else torch.int32
    no_codes = torch.zeros(spec.n_q, 0, dtype=torch.long)
    tensors = {
        "phonemes": torch.cat([torch.zeros(0, dtype=torch.long), *(u.phonemes for u in utterances)]).int(),
        "phoneme_offsets": _offsets([len(u.phonemes) for u in utterances]),
        "codes": torch.cat([no_codes, *(u.codes for u in utterances)], dim=1).to(small),
        "frame_offsets": _offsets([u.codes.shape[1] for u in utterances]),
    }
    if utterances and spec.n_time_invariant:
        tensors["time_invariant"] = torch.stack([_given(u.time_invariant) for u in utterances]).to(small)
    if utterances and header.aligner_hash is not None:
        tensors["durations"] = torch.cat([_given(u.durations) for u in utterances]).int()
    metadata = {
        "utterances": json.dumps([_facts(u) for u in utterances], ensure_ascii=False),
        "dropped": json.dumps([asdict(d) for d in dropped], ensure_ascii=False),
    }
    with whole(path) as part:
        # Not save_file: it writes to a temporary file of its own, which a killed run would leave behind.
        part.write_bytes(save(tensors, metadata))
    for left_by_a_killed_run in path.parent.glob(f".*.{path.name}"):
        left_by_a_killed_run.unlink(missing_ok=True)


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("the header promises time-invariant codes or durations that an utterance lacks")
    return tensor


def _facts(utterance: TokenizedUtterance) -> dict[str, Any]:
    facts = {name: getattr(utterance, name) for name in ("id", "speaker", "text", "language")}
    return {**facts, "frames": utterance.codes.shape[1]}


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def read_metadata(path: Path) -> tuple[list[dict[str, Any]], list[Drop]]:
    """The utterances and the dropped cuts of a shard, without reading its tensors."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        return json.loads(metadata["utterances"]), [Drop(**d) for d in json.loads(metadata["dropped"])]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run 'valle tokenize' again") from error


class TokenDataset(Dataset):
    """The utterances of one or several folders of shards, in the order of the folders; items are read when asked for.

    ids, speakers:  names, N each
    frames:         int64 [N], duration of each utterance in codec frames
    languages:      codes of all that are spoken
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        if not folders:
            raise UserError("no folder of tokens was given")
        headers = [TokenHeader.read(folder) for folder in folders]
        for folder, header in zip(folders[1:], headers[1:], strict=True):
            headers[0].check_mixes_with(header, str(folders[0]), str(folder))
        self.header = replace(headers[0], utterances=sum(h.utterances for h in headers))
        self.ids: list[str] = []
        self.speakers: list[str] = []
        self.languages: set[str] = set()
        self._paths: list[Path] = []
        self._ends: list[int] = []
        frames: list[int] = []
        for folder, header in zip(folders, headers, strict=True):
            for path in _all_shards(Path(folder), header):
                utterances, _ = read_metadata(path)
                self.ids += [u["id"] for u in utterances]
                self.speakers += [u["speaker"] for u in utterances]
                self.languages |= {u.get("language", "en-us") for u in utterances}
                frames += [u["frames"] for u in utterances]
                self._paths.append(path)
                self._ends.append(len(self.ids))
        self.frames = np.array(frames, dtype=np.int64)
        if not self.ids:
            raise UserError(f"{', '.join(map(str, folders))}: every utterance was dropped when tokenizing")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> np.ndarray:
        """Duration of each utterance, float64 [N]."""
        return self.frames / self.header.codec.frame_rate

    def texts(self) -> Iterator[str]:
        """What is said in each utterance, in their order."""
        return (utterance["text"] for path in self._paths for utterance in read_metadata(path)[0])

    def __getitem__(self, index: int) -> TokenizedUtterance:
        shard = bisect_right(self._ends, index)
        path, row = self._paths[shard], index - (self._ends[shard - 1] if shard else 0)
        tensors = _tensors(path)
        first, last = tensors["phoneme_offsets"][row : row + 2].tolist()
        start, end = tensors["frame_offsets"][row : row + 2].tolist()
        return TokenizedUtterance(
            id=self.ids[index],
            speaker=self.speakers[index],
            text=_facts_of(path)[row]["text"],
            language=_facts_of(path)[row].get("language", "en-us"),
            phonemes=tensors["phonemes"][first:last].long(),
            codes=tensors["codes"][:, start:end].long(),
            time_invariant=tensors["time_invariant"][row].long() if "time_invariant" in tensors else None,
            durations=tensors["durations"][first:last].long() if "durations" in tensors else None,
        )


def _all_shards(folder: Path, header: TokenHeader) -> list[Path]:
    paths = [shard_path(folder, i) for i in range(header.shards)]
    missing = [p for p in paths if not p.exists()]
    if missing:
        raise UserError(
            f"{folder} has {len(paths) - len(missing)} of {len(paths)} shards; run the same 'valle tokenize' again"
        )
    return paths


# Each process maps the shards that it reads into its own memory. The mapping costs no memory, only addresses.
@lru_cache(maxsize=4096)
def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run 'valle tokenize' again") from error


@lru_cache(maxsize=64)
def _facts_of(path: Path) -> list[dict[str, Any]]:
    return read_metadata(path)[0]
