"""What a check of the decoding found, beside what is wanted: `Finding`, and `table`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from valle.common.tables import plain_table
from valle.eval.stats import Estimate


@dataclass(frozen=True)
class Finding:
    """One figure. `wanted` and `met` are empty for what only stands beside another figure."""

    what: str
    value: Estimate | float
    wanted: str = ""
    met: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        value = self.value.to_dict() if isinstance(self.value, Estimate) else {"value": self.value}
        return {"what": self.what, **value, "wanted": self.wanted, "met": self.met}


def table(found: dict[str, Sequence[Finding]]) -> str:
    """The findings of each check as text for a terminal."""
    rows = []
    for check, findings in found.items():
        rows.append((check, "", "", ""))
        for finding in findings:
            value = str(finding.value) if isinstance(finding.value, Estimate) else f"{finding.value:.1f}"
            verdict = {None: "", True: "met", False: "NOT MET"}[finding.met]
            rows.append((f"  {finding.what}", value, finding.wanted, verdict))
    return plain_table(rows)
