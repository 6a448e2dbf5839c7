"""Networks that predict what listeners would say of a recording's quality: `build_naturalness(name)`.

They stand in for a listening test and are none: trained on calls, noise suppressors or older synthesisers, they know
nothing of likeness or of the text. `dnsmos` comes with its package; `utmos` and `nisqa` need weights from a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from valle.common.audio import resample
from valle.common.errors import UserError
from valle.eval.judges.measure import UnmeasurableError, check_audible, optional_package

SAMPLE_RATE = 16_000
_MIN_SECONDS = 0.5


class Naturalness(ABC):
    """A recording to predicted mean opinion scores, 1 to 5."""

    name: str
    parts: tuple[str, ...]
    """Names of its scores, the overall one first and called like the predictor."""

    def score(self, wav: Tensor, sample_rate: int) -> dict[str, float]:
        """Scores of `wav` [S] at `sample_rate` Hz. Raises `UnmeasurableError` for silence and less than 0.5 s."""
        check_audible(wav, "recording")
        audio = resample(wav.detach().cpu().float().clamp(-1, 1).numpy(), sample_rate, SAMPLE_RATE).clip(-1, 1)
        if len(audio) < _MIN_SECONDS * SAMPLE_RATE:
            raise UnmeasurableError(f"recording: shorter than {_MIN_SECONDS} s")
        return dict(zip(self.parts, self._score(audio), strict=True))

    @abstractmethod
    def _score(self, audio: np.ndarray) -> list[float]:
        """The scores of an audible recording, float32 [S] at 16 kHz in [-1, 1]."""


class DNSMOS(Naturalness):
    """DNSMOS P.835 (Reddy et al., 2022): overall, signal, background; trained on noisy calls after suppression."""

    name = "dnsmos"
    parts = ("dnsmos", "dnsmos_sig", "dnsmos_bak")

    def __init__(self) -> None:
        self._package = optional_package("speechmos.dnsmos", "speechmos' 'onnxruntime")

    def _score(self, audio: np.ndarray) -> list[float]:
        found = self._package.run(audio, SAMPLE_RATE)
        return [float(found[part]) for part in ("ovrl_mos", "sig_mos", "bak_mos")]


class UTMOS(Naturalness):
    """UTMOS22 (Saeki et al., 2022), trained on synthetic English: `utmos.jit` of the Hub's balacoon/utmos.

    That file is TorchScript, which maps 16-bit samples [1, S] at 16 kHz to a score.
    """

    name = "utmos"
    parts = ("utmos",)

    def __init__(self, weights: str) -> None:
        _check_weights(self.name, weights)
        try:
            self._model = torch.jit.load(weights, map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{weights} cannot be read as TorchScript; {_SOURCES[self.name]}") from error

    @torch.inference_mode()
    def _score(self, audio: np.ndarray) -> list[float]:
        return [float(self._model(torch.from_numpy((audio * 32767).astype(np.int16))[None]))]


class NISQA(Naturalness):
    """NISQA v2.0 (Mittag et al., 2021), trained on telephone speech, through torchmetrics: overall and four reasons."""

    name = "nisqa"
    parts = ("nisqa", "nisqa_noisiness", "nisqa_discontinuity", "nisqa_coloration", "nisqa_loudness")

    def __init__(self, weights: str) -> None:
        _check_weights(self.name, weights)
        self._package = cast(Any, optional_package("torchmetrics.functional.audio.nisqa", "torchmetrics>=1.6"))
        # torchmetrics reads `nisqa.tar` of this folder and would otherwise download it.
        self._package.NISQA_DIR = str(Path(weights).parent)
        self._package._load_nisqa_model.cache_clear()

    def _score(self, audio: np.ndarray) -> list[float]:
        try:
            found = self._package.non_intrusive_speech_quality_assessment(torch.from_numpy(audio), SAMPLE_RATE)
        except RuntimeError as error:
            raise UnmeasurableError(f"NISQA: {error}") from error
        return [float(value) for value in found]


_SOURCES = {
    "utmos": "fetch it with: hf download balacoon/utmos utmos.jit --local-dir .",
    "nisqa": "fetch nisqa.tar from github.com/gabrielmittag/NISQA/raw/refs/heads/master/weights/nisqa.tar",
}


def naturalness_names() -> list[str]:
    """All known predictors, the one that needs no weights first."""
    return [DNSMOS.name, UTMOS.name, NISQA.name]


def build_naturalness(name: str, weights: str | None = None) -> Naturalness:
    """The predictor called `name`; `weights` is the file that utmos and nisqa need.

    Raises `UserError` for an unknown name and for weights that are missing.
    """
    if name == DNSMOS.name:
        if weights is not None:
            raise UserError(f"naturalness '{name}' has its weights built in; leave out '={weights}'")
        return DNSMOS()
    if name not in _SOURCES:
        raise UserError(f"unknown naturalness '{name}'; known ones: {', '.join(naturalness_names())}")
    if weights is None:
        raise UserError(f"naturalness '{name}' needs its weights: {name}=FILE; {_SOURCES[name]}")
    return UTMOS(weights) if name == UTMOS.name else NISQA(weights)


def _check_weights(name: str, weights: str) -> None:
    if not Path(weights).is_file():
        raise UserError(f"the weights of naturalness '{name}' are not at {weights}; {_SOURCES[name]}")
    if name == NISQA.name and Path(weights).name != "nisqa.tar":
        raise UserError(f"the weights of naturalness '{name}' must be in a file called nisqa.tar, got {weights}")
