"""The TiCodec paper's tables, cell by cell: its figure, ours with interval and n, or 'not measured here'.

python -m benchmarks.paper --runs                     # what has to be run for which cells
python -m benchmarks.paper --results results          # the tables, from results/<run>
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from valle.common.errors import UserError
from valle.common.tables import markdown_table
from valle.eval.results import System, load_systems
from valle.eval.stats import Estimate

TABLES = Path(__file__).with_suffix(".yaml")
NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class Cell:
    """One figure: the paper's and ours, None where there is none."""

    column: str
    paper: float | None
    ours: Estimate | None

    def text(self) -> str:
        """`paper | ours [interval] (n)`."""
        paper = "–" if self.paper is None else f"{self.paper:g}"
        if self.ours is None or math.isnan(self.ours.value):
            return f"{paper} | {NOT_MEASURED}"
        interval = "" if math.isnan(self.ours.low) else f" [{self.ours.low:.3g}, {self.ours.high:.3g}]"
        return f"{paper} | {self.ours.value:.3g}{interval} (n {self.ours.n})"


@dataclass(frozen=True)
class Table:
    """One of the tables: rows by name."""

    title: str
    columns: dict[str, str]
    rows: dict[str, list[Cell]]

    def text(self) -> str:
        """As Markdown."""
        head = ["system", *(f"{label}: paper | ours" for label in self.columns.values())]
        rows = [[name, *(cell.text() for cell in cells)] for name, cells in self.rows.items()]
        return f"### {self.title}\n\n{markdown_table(head, rows)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {
            name: {cell.column: {"paper": cell.paper, "ours": cell.ours and cell.ours.to_dict()} for cell in cells}
            for name, cells in self.rows.items()
        }
        return {"title": self.title, "columns": self.columns, "rows": rows}


@dataclass(frozen=True)
class Run:
    """An evaluation that fills cells."""

    needs: str
    command: str


def read_runs(path: Path = TABLES) -> dict[str, Run]:
    """The runs that the tables are made of."""
    return {name: Run(**run) for name, run in _read(path)["runs"].items()}


def paper_tables(results: Path | None = None, path: Path = TABLES) -> list[Table]:
    """The tables at `path`, filled from the folders below `results` that are named after the runs.

    Raises `UserError` where there is no such folder, and for a folder of a run that does not hold results.
    """
    if results is not None and not results.is_dir():
        raise UserError(
            f"--results {results} is no folder; 'python -m benchmarks.paper --runs' says what to run for one"
        )
    content = _read(path)
    there = [name for name in content["runs"] if results and (results / name / "results.json").exists()]
    systems = {name: load_systems([results / name]) for name in there if results}
    listening = _listening(results)
    return [
        Table(
            table["title"],
            table["columns"],
            {
                row["name"]: [
                    Cell(
                        column,
                        row.get("paper", {}).get(column),
                        _scaled(
                            _ours(row.get("ours"), column, systems, listening), table.get("scale", {}).get(column, 1)
                        ),
                    )
                    for column in table["columns"]
                ]
                for row in table["rows"]
            },
        )
        for table in content["tables"]
    ]


def _ours(
    where: Mapping[str, Any] | None,
    column: str,
    systems: Mapping[str, list[System]],
    listening: Mapping[str, Estimate],
) -> Estimate | None:
    if where is None:
        return None
    if "listening" in where:
        return listening.get(where["listening"])
    for system in systems.get(where["run"], []):
        if "context" in where:
            return system.context.get(where["context"].get(column))
        if system.n_q == where.get("n_q"):
            return system.metrics.get(column)
    return None


def _scaled(value: Estimate | None, factor: float) -> Estimate | None:
    if value is None or factor == 1:
        return value
    return Estimate(value.value * factor, value.low * factor, value.high * factor, value.n, value.excluded)


def _listening(results: Path | None) -> dict[str, Estimate]:
    path = results / "listening.json" if results else None
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {e["system"]: Estimate(e["value"], e["low"], e["high"], e["n"], e["excluded"]) for e in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not what 'valle eval listening read --json' prints ({error})") from error


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, or the runs that fill them."""
    parser = argparse.ArgumentParser("python -m benchmarks.paper", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of results, each named after its run")
    parser.add_argument("--runs", action="store_true", help="print the runs instead: what they need, their command")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    args = parser.parse_args(argv)
    if args.runs:
        for name, run in read_runs().items():
            print(f"{name}\n  needs: {run.needs}\n  {run.command.replace('DIR', str(args.results or 'DIR'))}")
        return
    try:
        tables = paper_tables(args.results)
    except UserError as error:
        parser.error(str(error))
    print(json.dumps([t.to_dict() for t in tables], indent=2) if args.json else "\n\n".join(t.text() for t in tables))


if __name__ == "__main__":
    main()
