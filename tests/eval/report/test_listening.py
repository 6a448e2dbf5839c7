from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from valle.common.errors import UserError
from valle.eval.report.listening import REFERENCE, Rating, make_kit, read_ratings, score_ratings
from valle.eval.results import System, load_systems

HEADER = "test,scale,listener,sample,score,place\n"


@pytest.fixture
def systems(
    row: Callable[..., dict[str, Any]], write_run: Callable[..., Path], tone: Callable[..., None], tmp_path: Path
) -> list[System]:
    rows = [row(f"text{i}") for i in range(4)]
    runs = [write_run(tmp_path / name, rows) for name in ("ours", "theirs")]
    for r in rows:
        tone(runs[0] / "references" / f"{r['id']}.wav")
    return load_systems(runs)


def test_the_test_tells_listeners_nothing(systems: list[System], tmp_path: Path) -> None:
    out, key = tmp_path / "test", tmp_path / "key.json"
    assert make_kit(systems, out, key, "smos", texts=3) == 9
    content = json.loads(key.read_text())
    assert sorted({entry["system"] for entry in content["samples"].values()}) == sorted({"ours", "theirs", REFERENCE})
    handed_out = "".join(str(p.relative_to(out)) for p in out.rglob("*")) + (out / "index.html").read_text()
    for secret in ("ours", "theirs", "text0", "text1", "text2", "text3", "p1"):
        assert secret not in handed_out
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', (out / "index.html").read_text())[1])  # type: ignore[index]
    assert {sample["id"] for sample in data["samples"]} == set(content["samples"])
    assert all((out / sample[part]).stat().st_size for sample in data["samples"] for part in ("sound", "prompt"))
    order = [content["samples"][sample["id"]]["system"] for sample in data["samples"]]
    assert order != sorted(order)
    assert not re.search(r"https?://", handed_out)


def test_what_cannot_be_a_test_is_refused(systems: list[System], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would be handed out"):
        make_kit(systems, tmp_path / "t", tmp_path / "t" / "key.json")
    with pytest.raises(UserError, match="only 4 texts"):
        make_kit(systems, tmp_path / "t", tmp_path / "key.json", texts=5)
    with pytest.raises(UserError, match="--texts must be 1 or more, got 0"):
        make_kit(systems, tmp_path / "t", tmp_path / "key.json", texts=0)
    with pytest.raises(UserError, match="known ones: mos, smos"):
        make_kit(systems, tmp_path / "t", tmp_path / "key.json", "cmos")


def test_answers_find_back_to_their_systems(systems: list[System], tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    make_kit(systems, tmp_path / "test", key, texts=2, with_reference=False)
    content = json.loads(key.read_text())
    score = {"ours": 4, "theirs": 2}
    lines = [
        f'{content["test"]},mos,"{who}",{name},{score[sample["system"]]},1\n'
        for who in ("Ann, B.", "Cy")
        for name, sample in content["samples"].items()
    ]
    (tmp_path / "a.csv").write_text(HEADER + "".join(lines))
    ours, theirs = score_ratings(read_ratings([tmp_path / "a.csv"], key))
    assert (ours.system, ours.mean.value, ours.mean.n, ours.listeners) == ("ours", 4, 4, 2)
    assert (theirs.system, theirs.mean.value) == ("theirs", 2)
    for bad, complaint in (
        (lines[0].replace(content["test"], "feed"), "line 2: this answer is of another test"),
        (lines[0].replace(",4,1", ",6,1").replace(",2,1", ",6,1"), "score must be 1 to 5"),
    ):
        (tmp_path / "b.csv").write_text(HEADER + bad)
        with pytest.raises(UserError, match=complaint):
            read_ratings([tmp_path / "b.csv"], key)
    changed = lines[0].replace(",4,1", ",1,1").replace(",2,1", ",1,1")
    (tmp_path / "b.csv").write_text(HEADER + changed)
    with pytest.raises(UserError, match="answered this sample before"):
        read_ratings([tmp_path / "a.csv", tmp_path / "b.csv"], key)


def test_intervals_by_hand_and_by_kind_of_spread() -> None:
    one = [Rating("ann", "a", f"t{i}", score) for i, score in enumerate([3, 4, 5, 4])]
    (rating,) = score_ratings(one)
    assert rating.mean.value == 4
    deviation = math.sqrt(2 / 3)
    assert rating.half_width == pytest.approx(3.182 * deviation / 2, abs=1e-3)  # t of 3 degrees of freedom
    # Eight listeners of whom half dislike everything: more texts make nothing surer, and the crossed interval says so.
    split = [Rating(f"l{i}", "a", f"t{j}", 1 if i < 4 else 5) for i in range(8) for j in range(25)]
    (rating,) = score_ratings(split)
    assert rating.mean.high - rating.mean.low > 2
    assert rating.half_width < 0.3
