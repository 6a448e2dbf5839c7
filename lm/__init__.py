"""Language models: text to speech codes."""

from valle.lm.ar import ARLogits, ARModel, ARSteps
from valle.lm.config import LMConfig
from valle.lm.nar import NARModel

__all__ = ["ARLogits", "ARModel", "ARSteps", "LMConfig", "NARModel"]
