"""Which token is spoken when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from valle.common.errors import UserError
from valle.data.phone_frames import PhoneFrames
from valle.data.shards import TokenizedUtterance, shard_path, write_shard
from valle.data.token_header import TokenHeader
from valle.tokenizers.codecs.base import CodecSpec
from valle.tokenizers.text import PhonemeTokenizer


def shards(folder: Path, aligned: bool) -> Path:
    """One utterance of ten frames at 50 Hz: token 7 for four of them, token 3 for none, token 9 for six."""
    text = PhonemeTokenizer()
    spec = CodecSpec("spectral", 16000, 320, 1, 32, 0, 0)
    header = TokenHeader(spec, "c", text.to_dict(), text.fingerprint, "a" if aligned else None, "m", 1, 500)
    folder.mkdir()
    header.write(folder)
    utterance = TokenizedUtterance(
        "one", "speaker", "text", torch.tensor([7, 3, 9]), torch.zeros(1, 10).long(), None, torch.tensor([4, 0, 6])
    )
    write_shard(shard_path(folder, 0), header, [utterance], [])
    return folder


def test_each_frame_of_an_excerpt_has_the_token_at_its_centre(tmp_path: Path) -> None:
    phones = PhoneFrames(shards(tmp_path / "tokens", aligned=True))
    assert phones("one", 0.0, 0.2).tolist() == [7] * 4 + [9] * 6
    assert phones("one", 0.009, 0.1).tolist() == [7] * 4 + [9]  # 9 ms later: centres still in the same frames
    assert phones("one", 0.011, 0.1).tolist() == [7] * 3 + [9] * 2
    assert phones("one", 0.14, 0.1).tolist() == [9] * 3 + [-1] * 2
    assert phones("one", 0.0, 0.1, speed=2.0).tolist() == [7] * 2 + [9] * 3
    assert phones("another", 0.0, 0.1).tolist() == [-1] * 5


def test_tokens_without_durations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--aligner"):
        PhoneFrames(shards(tmp_path / "tokens", aligned=False))
