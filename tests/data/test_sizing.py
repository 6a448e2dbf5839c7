from __future__ import annotations

from pathlib import Path

import pytest

from valle.data.sizing import size_up
from valle.data.tokenize import tokenize
from valle.tokenizers.text import PhonemeTokenizer


def test_the_sample_says_how_large_the_whole_is(cuts: Path, codec_dirs: tuple[Path, Path], tmp_path: Path) -> None:
    text = PhonemeTokenizer()
    sizing = size_up(cuts, codec_dirs[0], text, sample_seconds=60.0)
    report = tokenize(cuts, tmp_path / "tokens", codec_dirs[0], text, shard_size=100)
    assert sizing.utterances == 25 and sizing.hours == pytest.approx(report.seconds / 3600, rel=0.01)
    size = sum(path.stat().st_size for path in (tmp_path / "tokens").glob("shard-*"))
    assert sizing.hours * sizing.bytes_per_hour == pytest.approx(size, rel=0.3)
    assert sizing.speed > 0 and sizing.dropped == 0
    assert f"{585 / sizing.speed / 4:,.2f} h with 4 processes" in sizing.table(4, hours=585.0)
