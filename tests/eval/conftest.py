"""Short real recordings for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from valle.eval.lists import Recording, read_list
from valle.tokenizers.audio import load_audio


@pytest.fixture(scope="session")
def recordings() -> dict[str, Recording]:
    """The shipped list, by id."""
    return {recording.id: recording for recording in read_list()}


@pytest.fixture(scope="session")
def speech(recordings: dict[str, Recording]) -> Callable[[str], Tensor]:
    """A shipped recording [S] at 16 kHz by its id."""
    return lambda id_: load_audio(recordings[id_].path, 16_000)
