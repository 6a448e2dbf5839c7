"""Zero-shot text-to-speech: `from valle import VoiceCloner`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valle.cloner import VoiceCloner

__version__ = "0.1.0"
__all__ = ["VoiceCloner", "__version__"]


def __getattr__(name: str) -> object:
    """Import torch only when it is needed (PEP 562): `valle --help` stays instant."""
    if name == "VoiceCloner":
        from valle.cloner import VoiceCloner

        return VoiceCloner
    raise AttributeError(f"module 'valle' has no attribute '{name}'")
