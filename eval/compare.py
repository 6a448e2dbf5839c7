"""Systems on the same list, utterance by utterance: `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from valle.common.errors import UserError
from valle.common.tables import plain_table
from valle.eval.figures import find_figure, in_order
from valle.eval.saved_results import Row, System
from valle.eval.stats import Estimate, estimate, estimate_difference

_RATES = {"wer": ("words", ("substitutions", "deletions", "insertions")), "cer": ("characters", None)}
"""Errors of a corpus are all errors over all words (or characters), not the mean of the utterances' rates."""
_YES_NO = {"skips": ("skipped",), "repeats": ("repeated",), "misread": ("skipped", "repeated")}
_NOT_QUALITIES = {
    *("words", "characters", "substitutions", "deletions", "insertions", "seconds", "n_q", "skipped", "repeated"),
    "sim_others",
}


@dataclass(frozen=True)
class Comparison:
    """One figure of one system beside the first system's, on the utterances that both have."""

    figure: str
    system: str
    value: Estimate
    first: Estimate
    difference: Estimate
    """System minus first, paired; an interval without 0 is a difference."""

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, by the interval of the difference."""
        low, high = self.difference.low, self.difference.high
        if not (low > 0 or high < 0):
            return "no difference shown"
        return "better" if (low > 0) == find_figure(self.figure).higher_is_better else "worse"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        figures = {"value": self.value, "first": self.first, "difference": self.difference}
        named = {"figure": self.figure, "system": self.system, "verdict": self.verdict}
        return named | {name: value.to_dict() for name, value in figures.items()}


def compare(systems: Sequence[System], seed: int = 0) -> list[Comparison]:
    """Every figure of every system but the first beside the first's, with paired bootstrap intervals.

    Raises `UserError` for fewer than two systems, and for two without a common utterance or with other texts.
    """
    if len(systems) < 2:
        raise UserError("a comparison needs two results or more")
    return [found for other in systems[1:] for found in _compare_two(systems[0], other, seed)]


def _compare_two(first: System, other: System, seed: int) -> list[Comparison]:
    common = [id_ for id_ in first.rows if id_ in other.rows]
    if not common:
        raise UserError(f"'{first.name}' and '{other.name}' have no utterance in common; give results of one list")
    a, b = [first.rows[id_] for id_ in common], [other.rows[id_] for id_ in common]
    for one, same in zip(a, b, strict=True):
        if one.texts.get("text") != same.texts.get("text"):
            raise UserError(f"'{one.id}' has another text in '{other.name}' than in '{first.name}'")
    names = {name for row in (a[0], b[0]) for name in row.numbers} - _NOT_QUALITIES
    names |= {
        name for name, columns in _YES_NO.items() if all(c in a[0].numbers and c in b[0].numbers for c in columns)
    }
    found = []
    for name in in_order({name for name in names if _has(name, a) and _has(name, b)}):
        x, weights = _values(name, a)
        y, _ = _values(name, b)
        found.append(
            Comparison(
                name,
                other.name,
                estimate(y, weights, seed),
                estimate(x, weights, seed),
                estimate_difference(y, x, weights, seed),
            )
        )
    return found


def _has(name: str, rows: Sequence[Row]) -> bool:
    return any(value is not None for value in _values(name, rows)[0])


def _values(name: str, rows: Sequence[Row]) -> tuple[list[float | None], list[float] | None]:
    """What is summed up for figure `name`, and its weights (None: a plain mean)."""
    if name in _YES_NO:
        return [_any_of(row, _YES_NO[name]) for row in rows], None
    if name not in _RATES:
        return [row.numbers.get(name) for row in rows], None
    unit, parts = _RATES[name]
    lengths = [row.numbers.get(unit) or 0.0 for row in rows]
    if parts is not None:
        return [sum(row.numbers.get(part) or 0.0 for part in parts) for row in rows], lengths
    return [(row.numbers.get(name) or 0.0) * length for row, length in zip(rows, lengths, strict=True)], lengths


def _any_of(row: Row, columns: Sequence[str]) -> float | None:
    known = [row.numbers[column] for column in columns]
    return None if None in known else float(any(known))


def table(found: Sequence[Comparison], first: str) -> str:
    """As text for a terminal."""
    lines = []
    for system in dict.fromkeys(comparison.system for comparison in found):
        mine = [comparison for comparison in found if comparison.system == system]
        lines.append(f"{system} against {first}, {mine[0].difference.n} utterances, difference [95 % interval, paired]")
        rows = []
        for c in mine:
            figure = find_figure(c.figure)
            d = c.difference
            scale, unit = (100, " points") if figure.percent else (1, "")
            shown = f"{scale * d.value:+.3g} [{scale * d.low:+.3g}, {scale * d.high:+.3g}]{unit}"
            values = figure.text(c.value.value), "against", figure.text(c.first.value)
            rows.append((figure.label, *values, shown, c.verdict))
        lines.append(indent(plain_table(rows, "<><><"), "  "))
    return "\n".join(lines)
