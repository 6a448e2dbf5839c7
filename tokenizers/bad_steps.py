"""Optimizer steps that are skipped because the gradient is not finite, and when to give up: `BadSteps`."""

from __future__ import annotations

from valle.tokenizers.errors import UserError


class BadSteps:
    """Counts them: `skipped` in all, `in_a_row` since the last good one.

    most_in_a_row: so many end the training: one bad batch is bad luck, but weights that give no finite gradient for
                   anything never will again
    advice:        what to do then, for the message
    """

    def __init__(self, most_in_a_row: int, advice: str) -> None:
        self.most_in_a_row, self.advice = most_in_a_row, advice
        self.skipped = self.in_a_row = 0

    def count(self, finite: bool) -> None:
        """Take note of a step. Raises `UserError` when it is one bad step too many."""
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= self.most_in_a_row:
            raise UserError(f"training: the gradient was not finite {self.in_a_row} steps in a row; {self.advice}")
