"""Language models: text to speech codes."""

from valle.lm.ar import ARLogits, ARModel, ARSteps
from valle.lm.config import ARConfig, FlowConfig, LMConfig, NARConfig
from valle.lm.decoder import Decoder, Row, generate
from valle.lm.flow import FlowModel
from valle.lm.nar import NARModel
from valle.lm.refine import refine
from valle.lm.request import Generated, Request
from valle.lm.sampling import Sampling
from valle.lm.weights import from_checkpoint, load_lm, save_lm

__all__ = [
    "ARConfig",
    "ARLogits",
    "ARModel",
    "ARSteps",
    "Decoder",
    "FlowConfig",
    "FlowModel",
    "Generated",
    "LMConfig",
    "NARConfig",
    "NARModel",
    "Request",
    "Row",
    "Sampling",
    "from_checkpoint",
    "generate",
    "load_lm",
    "refine",
    "save_lm",
]
