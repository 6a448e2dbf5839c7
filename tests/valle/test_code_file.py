"""Code files: every bit comes back, the size is the bitrate's, and what is no whole code file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from valle.common.errors import UserError
from valle.tokenizers.codecs.base import CodecSpec, SpeechCodes
from valle.tokenizers.codecs.code_file import CodeFile


def random_file(size: int, n_q: int, samples: int, groups: int, ti_size: int, seed: int = 0) -> CodeFile:
    spec = CodecSpec("spectral", 16000, 320, 8, size, groups, ti_size if groups else 0)
    drawn, frames = torch.Generator().manual_seed(seed), spec.frames(samples)
    codes = torch.randint(size, (1, n_q, frames), generator=drawn)
    voice = torch.randint(ti_size, (1, groups), generator=drawn) if groups else None
    return CodeFile(spec, "0123456789abcdef", SpeechCodes(codes, torch.tensor([frames]), voice), samples)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 70_000),
    n_q=st.integers(1, 8),
    samples=st.integers(1, 20_000),
    groups=st.integers(0, 9),
    ti_size=st.integers(1, 3_000),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory, size: int, n_q: int, samples: int, groups: int, ti_size: int
) -> None:
    written = random_file(size, n_q, samples, groups, ti_size)
    path = tmp_path_factory.mktemp("codes") / "a.codes"
    written.save(path)
    read = CodeFile.load(path)
    assert (read.spec, read.codec_hash, read.samples) == (written.spec, written.codec_hash, written.samples)
    assert torch.equal(read.codes.codes, written.codes.codes)
    assert torch.equal(read.codes.lengths, written.codes.lengths)
    if written.codes.time_invariant is None:
        assert read.codes.time_invariant is None
    else:
        assert read.codes.time_invariant is not None
        assert torch.equal(read.codes.time_invariant, written.codes.time_invariant)


def test_the_size_is_the_bitrate(tmp_path: Path) -> None:
    sizes = {}
    for seconds in (10, 70):
        random_file(1024, 4, 16000 * seconds, 8, 1024).save(tmp_path / "a.codes")
        sizes[seconds] = (tmp_path / "a.codes").stat().st_size
    # 50 frames of 4 codes of 10 bits: 2000 bit/s. The larger number of samples has a digit more.
    assert sizes[70] - sizes[10] == 60 * 2000 / 8 + 1
    assert sizes[10] - (10 * 2000 + 80) / 8 < 300


def test_a_file_that_is_cut_short_or_changed_is_refused(tmp_path: Path) -> None:
    path, damaged = tmp_path / "a.codes", tmp_path / "b.codes"
    random_file(1024, 2, 16000, 8, 1024).save(path)
    whole = path.read_bytes()
    for end in [*range(14), *range(14, len(whole), 17)]:
        damaged.write_bytes(whole[:end])
        with pytest.raises(UserError, match="is no code file" if end < 9 else "is cut short or damaged"):
            CodeFile.load(damaged)
    for place in [*range(5, 14), *range(14, len(whole), 17)]:
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            CodeFile.load(damaged)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.codes"
    random_file(1024, 2, 16000, 8, 1024).save(path)
    newer = bytearray(path.read_bytes())
    newer[4] = 3
    path.write_bytes(newer)
    with pytest.raises(UserError, match="version 3, this program reads 2"):
        CodeFile.load(path)
    path.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(UserError, match="is no code file; 'valle codec encode' makes them"):
        CodeFile.load(path)
    with pytest.raises(UserError, match="code file not found"):
        CodeFile.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="Is a directory"):
        CodeFile.load(tmp_path)
