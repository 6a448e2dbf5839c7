from __future__ import annotations

import pytest

from valle.common.errors import UserError
from valle.eval.manner import Manner


def test_settings_are_read_and_only_what_differs_is_told() -> None:
    assert Manner.parse([]).to_dict() == {}
    manner = Manner.parse(["retries=0", "ras_window=10", "temperature=0.5", "greedy=true", "precision=fp32"])
    assert manner == Manner(
        retries=0, precision="fp32", sampling={"ras_window": 10, "temperature": 0.5, "greedy": True}
    )
    assert set(manner.to_dict()) == {"retries", "precision", "sampling"}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("retry=0", "unknown setting"),
        ("retries", "setting 'retries'"),
        ("retries=x", "retries=x"),
        ("top_p=2", "top_p"),
    ],
)
def test_settings_that_make_no_sense_are_named(setting: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Manner.parse([setting])
