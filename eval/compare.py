"""Systems on the same list, utterance by utterance: `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from valle.common.errors import UserError
from valle.common.tables import plain_table
from valle.eval.results import System, figure_names, figure_values, find_figure, in_order
from valle.eval.stats import Estimate, estimate, estimate_difference


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
    names = {name for name in figure_names([a[0], b[0]]) if name != "sim_others"}  # neither way is better
    found = []
    for name in in_order(names):
        x, weights = figure_values(name, a)
        y, _ = figure_values(name, b)
        if any(value is not None for value in x) and any(value is not None for value in y):
            yardstick, value = estimate(x, weights, seed), estimate(y, weights, seed)
            found.append(Comparison(name, other.name, value, yardstick, estimate_difference(y, x, weights, seed)))
    return found


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
