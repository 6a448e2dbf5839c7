from __future__ import annotations

import pytest

from valle.common.tables import markdown_table, plain_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("name", "n", "x"), ("a", 1000, 2.5), ("longest", 1, "")]
    assert plain_table(rows) == "name     n     x\na        1000  2.5\nlongest  1"
    assert plain_table(rows, "<>") == "name        n    x\na        1000  2.5\nlongest     1"
    with pytest.raises(ValueError, match="shorter"):
        plain_table([("a", "b"), ("c",)])


def test_cells_of_markdown_may_hold_its_signs() -> None:
    assert markdown_table(["a", "b"], [["1 | 2", "3"]]) == "| a | b |\n|---|---|\n| 1 \\| 2 | 3 |"
