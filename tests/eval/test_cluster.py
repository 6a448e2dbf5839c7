from __future__ import annotations

import pytest

from valle.eval.cluster import Place, parse_part
from valle.tokenizers.errors import UserError


def test_parts_are_counted_from_one() -> None:
    assert parse_part("1/1") == Place(0, 1)
    assert parse_part("3/8") == Place(2, 8)
    for wrong in ("0/2", "3/2", "2", "a/b", "-1/2", ""):
        with pytest.raises(UserError, match="I/N"):
            parse_part(wrong)


def test_a_launcher_says_which_part(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    assert parse_part("auto") == Place(0, 1)
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert parse_part("auto") == Place(5, 8, 1)
