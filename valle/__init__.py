"""Zero-shot text-to-speech: `from valle import VoiceCloner`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from valle.common.device import wait_asleep

if TYPE_CHECKING:
    from valle.common.errors import UserError
    from valle.synthesis.cloner import VoiceCloner
    from valle.synthesis.options import SynthesisOptions
    from valle.synthesis.prompt import Voice

__version__ = "0.1.0"
__all__ = ["SynthesisOptions", "UserError", "Voice", "VoiceCloner", "__version__"]

_HOMES = {
    "SynthesisOptions": "valle.synthesis.options",
    "UserError": "valle.common.errors",
    "Voice": "valle.synthesis.prompt",
    "VoiceCloner": "valle.synthesis.cloner",
}


def __getattr__(name: str) -> object:
    """Import torch only when it is needed (PEP 562): `valle --help` stays instant."""
    if name == "VoiceCloner":
        wait_asleep()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'valle' has no attribute '{name}'")
