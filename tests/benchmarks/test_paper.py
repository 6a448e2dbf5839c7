from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import NOT_MEASURED, TABLES, paper_tables, read_runs
from valle.cli import build_parser
from valle.common.errors import UserError


def test_nothing_measured_is_said_in_every_cell() -> None:
    tables = paper_tables()
    cells = [cell for table in tables for cells in table.rows.values() for cell in cells]
    assert len(tables) == 3
    assert all(NOT_MEASURED in cell.text() for cell in cells)
    shown = "\n".join(table.text() for table in tables)
    for figure in ("3.615", "1.634", "0.854", "28.8", "0.759", "4.15"):
        assert figure in shown


def test_our_figures_stand_beside_the_papers(
    row: Callable[..., dict[str, Any]], write_run: Callable[..., Path], tmp_path: Path
) -> None:
    write_run(tmp_path / "tts-2", [row("x"), row("y")], sounds=False)
    rating = {"system": "tts-2", "value": 4.25, "low": 4.0, "high": 4.5, "n": 40, "excluded": 0, "half_width": 0.2}
    (tmp_path / "listening.json").write_text(json.dumps([rating]))
    tables = paper_tables(tmp_path)
    cells = {
        (name, cell.column): cell.text() for table in tables for name, cells in table.rows.items() for cell in cells
    }
    two = "TiCodec + L_c, 2 token sequences"
    assert cells[two, "wer"] == "9.1 | 33.3 [16.7, 66.7] (n 2)"  # per cent, as in the paper
    assert cells[two, "sim"] == f"0.759 | {NOT_MEASURED}"
    assert cells[two, "mos"] == "4.15 | 4.25 [4, 4.5] (n 40)"
    assert cells["TiCodec + L_c, 1 token sequence", "wer"] == f"28.8 | {NOT_MEASURED}"
    (tmp_path / "listening.json").write_text("[1]")
    with pytest.raises(UserError, match="listening read --json"):
        paper_tables(tmp_path)


def test_every_run_is_a_command_that_exists() -> None:
    runs = read_runs(TABLES)
    for name, run in runs.items():
        program, *argv = shlex.split(run.command)
        assert program == "valle"
        args = build_parser(argv).parse_args(argv)
        assert args.out == Path("DIR") / name
