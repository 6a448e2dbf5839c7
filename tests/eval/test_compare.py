from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from valle.common.errors import UserError
from valle.eval.compare import compare, table
from valle.eval.results import load_systems

MakeRow = Callable[..., dict[str, Any]]
WriteRun = Callable[..., Path]


def test_pairs_show_what_intervals_hide(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    # Texts differ far more than systems: each text is a little better in b.
    def rows(gain: float) -> list[dict[str, Any]]:
        return [row(f"t{i}", sim=0.4 + 0.04 * i + gain + 0.001 * (i % 3)) for i in range(12)]

    a = write_run(tmp_path / "a", rows(0.0), sounds=False)
    b = write_run(tmp_path / "b", list(reversed(rows(0.02))), sounds=False)
    found = {c.figure: c for c in compare(load_systems([a, b]))}
    sim = found["sim"]
    assert sim.value.low < sim.first.high, "the two intervals overlap"
    assert sim.difference.value == pytest.approx(0.02)
    assert sim.difference.low > 0
    assert sim.verdict == "better"
    assert found["wer"].difference.value == 0
    assert found["wer"].verdict == found["misread"].verdict == "no difference shown"
    assert "sim" not in {c.figure for c in compare(load_systems([a, b])) if c.verdict == "worse"}
    assert "+0.02" in table(list(found.values()), "a")


def test_error_rates_are_those_of_the_corpus(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    short, long = {"words": 1, "characters": 4}, {"words": 9, "characters": 40}
    a = [row("x", **short, substitutions=1, cer=1.0, skipped=1), row("y", **long, substitutions=0, cer=0.0)]
    b = [row("x", **short, substitutions=0, cer=0.0), row("y", **long, substitutions=1, cer=0.1, repeated=2)]
    runs = [write_run(tmp_path / name, rows, sounds=False) for name, rows in (("a", a), ("b", b))]
    found = {c.figure: c for c in compare(load_systems(runs))}
    assert found["wer"].first.value == found["wer"].value.value == pytest.approx(0.1)
    assert found["cer"].first.value == found["cer"].value.value == pytest.approx(4 / 44)
    assert (found["skips"].first.value, found["skips"].value.value) == (0.5, 0)
    assert (found["repeats"].value.value, found["misread"].value.value) == (0.5, 0.5)


def test_only_what_can_be_compared_is(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [row("x")], sounds=False)
    other = write_run(tmp_path / "other", [row("z")], sounds=False)
    reworded = write_run(tmp_path / "reworded", [row("x", text="The dog sat.")], sounds=False)
    with pytest.raises(UserError, match="two results or more"):
        compare(load_systems([a]))
    with pytest.raises(UserError, match="no utterance in common"):
        compare(load_systems([a, other]))
    with pytest.raises(UserError, match="'x' has another text in 'reworded'"):
        compare(load_systems([a, reworded]))
