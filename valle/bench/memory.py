"""How much memory this process has."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_PAGES = Path("/proc/self/statm")


def peak_bytes() -> int:
    """The most that this process has held at any time."""
    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """What this process holds now; where only Linux tells, the most that it has held."""
    if not _PAGES.exists():
        return peak_bytes()
    return int(_PAGES.read_text().split()[1]) * resource.getpagesize()


def kept_bytes() -> int:
    """`resident_bytes` after the allocator has given back what it holds and nobody uses, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return resident_bytes()
