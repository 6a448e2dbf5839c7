from __future__ import annotations

import pytest
import torch

from valle.common.distributed import Place, parse_part
from valle.common.errors import UserError


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


def test_each_process_of_a_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Place(5, 8, rank).device("cuda") for rank in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert Place(0, 2).device("cuda") == "cuda"
    assert [Place(5, 8, 1).device(other) for other in ("cpu", "cuda:2")] == ["cpu", "cuda:2"]
