"""Rows, and what is summed up of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from valle.common.errors import UserError
from valle.eval.judges.text import score_text
from valle.eval.results import Row, load_systems, summarise, write_results

HEAD = {"kind": "tts", "seed": 0, "config": {}, "versions": {}, "metrics": {}, "context": {}}


def test_the_corpus_rate_is_all_errors_over_all_words() -> None:
    scores = [score_text("one two three four", "one"), score_text("five", "five")]
    figures = summarise([Row(score.columns()) for score in scores])
    assert figures["wer"].value == 3 / 5
    assert figures["cer"].value == 15 / 22  # " two three four" of "one two three four" and "five"


def test_a_row_without_a_column_is_not_counted_one_without_a_value_is_excluded() -> None:
    rows = [Row({"sim": 0.5, "skipped": 1, "repeated": 0}), Row({"sim": None, "skipped": None, "repeated": None})]
    figures = summarise([*rows, Row({"skipped": 0, "repeated": 2})])
    assert list(figures) == ["sim", "skips", "repeats", "misread"]
    assert (figures["sim"].value, figures["sim"].n, figures["sim"].excluded) == (0.5, 1, 1)
    assert (figures["skips"].value, figures["skips"].n, figures["skips"].excluded) == (0.5, 2, 1)
    assert (figures["repeats"].value, figures["misread"].value) == (0.5, 1)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    text = score_text("the cat sat", "the hat sat down")
    row = Row(
        {"id": "a", "text": 'The  cat\tsat "on" it.', **text.columns(), "sim": None, "seconds": 1.25, "notes": ""}
    )
    write_results(tmp_path, HEAD, [row, Row({"id": "b", "dnsmos": 3.0})])
    (system,) = load_systems([tmp_path])
    back = system.rows["a"]
    assert back.texts["text"] == 'The cat sat "on" it.'
    assert back.texts["diff"] == text.diff
    assert back.numbers["sim"] is back.numbers["dnsmos"] is None
    assert (back.numbers["seconds"], back.numbers["words"]) == (1.25, 3)
    assert summarise([back])["cer"].value == summarise([row])["cer"].value, "the rate lost digits, its errors did not"
    assert system.rows["b"].numbers["dnsmos"] == 3


def test_results_that_cannot_stand_beside_others_are_named(tmp_path: Path) -> None:
    write_results(tmp_path, HEAD | {"kind": "ceilings"}, [Row({"id": "a"})])
    with pytest.raises(UserError, match="holds results of 'valle eval ceilings'"):
        load_systems([tmp_path])
