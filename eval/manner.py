"""How a model is made to speak in an evaluation, where that is not as usual: `Manner`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from valle.common.errors import UserError
from valle.eval.scorer import build_scorer
from valle.lm import Sampling
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.options import CANDIDATES, SynthesisOptions
from valle.synthesis.result import Speech


@dataclass(frozen=True)
class Manner:
    """Settings of `valle clone`."""

    retries: int = 2
    n_best: int = CANDIDATES
    best_by: str = "own"
    precision: str = "auto"
    sampling: dict[str, Any] = field(default_factory=dict)
    """Changes of the model's own `Sampling`."""

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Manner:
        """From `NAME=VALUE` each, the names being those of the fields and of `Sampling`. Raises `UserError`."""
        own: dict[str, Any] = {f.name: f.default for f in fields(cls) if f.name != "sampling"}
        known = own | asdict(Sampling())
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in known:
                raise UserError(f"unknown setting '{setting}'; write NAME=VALUE, with one of: {', '.join(known)}")
            try:
                values[name] = {"true": True, "false": False}.get(value, value)
                if not isinstance(known[name], bool):
                    values[name] = type(known[name])(value)
            except ValueError as error:
                raise UserError(f"setting '{setting}': {error}") from error
        sampling = {name: value for name, value in values.items() if name not in own}
        manner = cls(**{name: value for name, value in values.items() if name in own}, sampling=sampling)
        replace(Sampling(), **sampling)  # what makes no sense is told at once
        return manner

    def to_dict(self) -> dict[str, Any]:
        """What is not as usual."""
        usual = asdict(Manner())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def cloner(self, model: str | None, device: str, threads: int | None = None) -> Speaker:
        """The model (None: the embedded one), speaking in this manner."""
        cloner = VoiceCloner.from_pretrained(model, device, self.precision, threads)
        scorer = build_scorer(self.best_by) if self.n_best > 1 else None
        sampling = replace(cloner.bundle.sampling, **self.sampling)
        options = SynthesisOptions(sampling=sampling, candidates=self.n_best, retries=self.retries, scorer=scorer)
        return Speaker(cloner, options)


@dataclass
class Speaker:
    """A `valle.eval.tts.Cloner`."""

    cloner: VoiceCloner
    options: SynthesisOptions

    def clone(self, text: str, prompt: Path, prompt_text: str | None = None, seed: int = 0) -> Speech:
        return self.cloner.clone(text, prompt, prompt_text, self.options, seed=seed)

    def resynthesise(self, prompt: Path) -> tuple[Tensor, int]:
        return self.cloner.resynthesise(prompt)
