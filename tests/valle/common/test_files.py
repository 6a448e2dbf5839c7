from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from valle.common.errors import UserError
from valle.common.files import whole
from valle.tokenizers.codecs import build_codec, save_codec


def test_a_codec_that_finds_no_room_says_so_in_one_line(tmp_path: Path) -> None:
    codec = build_codec("spectral", {"dim": 32, "hidden": 32, "encoder_layers": 2, "decoder_layers": (1, 1)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the disk lets no file grow beyond this
    try:
        with pytest.raises(UserError, match=f"^cannot write {re.escape(str(tmp_path))}: .*make room") as caught:
            save_codec(codec, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"

    def stop_halfway() -> None:
        with whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert list(path.parent.iterdir()) == []
    with whole(path) as part:
        part.write_text("all")
        assert not path.exists() and part.suffix == ".txt"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"] and path.read_text() == "all"
