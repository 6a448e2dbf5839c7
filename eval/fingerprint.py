"""Hashes by which results know what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from valle.common.hub import find_model


def hash_files(paths: Iterable[Path]) -> str:
    """Of the contents of `paths`, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def hash_model(model: str | None) -> str:
    """Of the weights and the configuration of a model folder, Hub id, or the embedded model (None)."""
    folder = find_model(model)
    return hash_files(sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}))
