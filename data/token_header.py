"""The header of a folder of tokens: what they were made with, and what may be mixed with what."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
