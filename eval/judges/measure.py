"""What all judges need: a score or the reason why there is none, packages and weights that may be missing.

Silence and clips of no length must neither crash a run nor count as 0. Scores may be kept on disk as they are made:
`KeptScores`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec

from torch import Tensor

from valle.common.errors import UserError, install_advice
from valle.common.files import writing

SILENCE_DBFS = -80.0
"""A signal whose RMS lies below this is silence: the rounding noise of 16-bit audio is at -101 dBFS."""

P = ParamSpec("P")


class UnmeasurableError(Exception):
    """This signal has no such score; the message says why, in a few words."""


@dataclass(frozen=True)
class Score:
    """One measured value, or None with the reason."""

    value: float | None
    reason: str = ""


def measure(metric: Callable[P, float], *args: P.args, **kwargs: P.kwargs) -> Score:
    """`metric(...)` as a `Score`: what it raises as `UnmeasurableError`, or gives as NaN, becomes a reason."""
    try:
        value = float(metric(*args, **kwargs))
    except UnmeasurableError as error:
        return Score(None, str(error))
    return Score(value) if math.isfinite(value) else Score(None, "not a finite number")


class KeptScores:
    """Scores of pairs of signals that outlast an interruption: a line of a file for each, written at once.

    A score is used again for the very same samples, metric and `setting`, such as the versions of packages.
    """

    def __init__(self, path: Path | None = None, setting: str = "") -> None:
        """Read what is at `path`; None: keep nothing."""
        self.path, self.setting = path, setting
        self._known: dict[str, Score] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a kill has cut it short
                    key, value, reason = json.loads(line)
                    self._known[key] = Score(value, reason)

    def measure(
        self,
        name: str,
        metric: Callable[[Tensor, Tensor, int], float],
        reference: Tensor,
        wav: Tensor,
        sample_rate: int,
    ) -> Score:
        """`measure(metric, reference, wav, sample_rate)`, each [S], unless it is known already."""
        signals = (signal.numpy().tobytes() for signal in (reference, wav))
        content = hashlib.sha256("|".join((name, self.setting, str(sample_rate))).encode())
        for signal in signals:
            content.update(hashlib.sha256(signal).digest())
        key = content.hexdigest()[:32]
        if key not in self._known:
            self._known[key] = measure(metric, reference, wav, sample_rate)
            if self.path is not None:
                with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                    # The line before may have no end.
                    file.write(f"\n{json.dumps([key, self._known[key].value, self._known[key].reason])}")
        return self._known[key]


def why_inaudible(wav: Tensor) -> str:
    """Why nothing can be heard in `wav` [S]: "no samples", "samples that are not finite", "silence"; "" if it can."""
    if wav.numel() == 0:
        return "no samples"
    if not bool(wav.isfinite().all()):
        return "samples that are not finite"
    power = float(wav.double().square().mean())
    return "silence" if power < 10 ** (SILENCE_DBFS / 10) else ""


def check_audible(wav: Tensor, what: str) -> None:
    """Raise `UnmeasurableError` naming `what` if `wav` [S] is empty, not finite or silent."""
    if reason := why_inaudible(wav):
        raise UnmeasurableError(f"{what}: {reason}")


def optional_package(module: str, package: str) -> ModuleType:
    """Import `module` of an optional `package`; raises `UserError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"cannot import {module} ({error}); install it with: pip install '{package}' "
            f"(all of the evaluation, {install_advice('eval')})"
        ) from error


def load_pretrained(kind: str, model: str, what: str) -> Any:
    """`transformers.<kind>.from_pretrained(model)`.

    model: a folder made by `save_pretrained` (or copied from the Hub), or a Hub id
    what:  who needs it, for the message of the `UserError` that is raised when it cannot be had
    """
    transformers = optional_package("transformers", "transformers>=4.45")
    try:
        return getattr(transformers, kind).from_pretrained(model)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise UserError(
            f"the weights of {what} cannot be loaded from '{model}' ({reason}); on a machine that reaches the Hugging "
            f"Face Hub: hf download {_hub_id(model)} --local-dir DIR; then give DIR instead"
        ) from error


def _hub_id(model: str) -> str:
    return model if model.count("/") == 1 and not model.startswith((".", "/")) else "OWNER/NAME"
