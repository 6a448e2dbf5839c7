"""Corpora for the data tests: the recordings that ship with the package, and small codecs with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import valle
from valle.data.corpus import read_corpus
from valle.data.prepare import prepare_entries
from valle.tokenizers.codecs import build_codec, save_codec

ASSETS = Path(valle.__file__).parent / "assets" / "eval"
TINY = {"dim": 16, "hidden": 16, "encoder_layers": 3, "decoder_layers": (2, 1), "codebook_size": 32}


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The table of the shipped recordings: 50 utterances of 5 speakers."""
    return ASSETS / "list.tsv"


@pytest.fixture(scope="session")
def cuts(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared manifest of 25 shipped utterances, 5 of each speaker."""
    entries = [e for e in read_corpus(recordings) if e.id.endswith(("0001", "0002", "0003", "0004", "0005"))]
    return prepare_entries(entries, tmp_path_factory.mktemp("prepared"), jobs=1).cuts


@pytest.fixture(scope="session")
def codec_dirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two codecs that differ in their weights."""
    folders = tmp_path_factory.mktemp("codec-a"), tmp_path_factory.mktemp("codec-b")
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        save_codec(build_codec("spectral", TINY), folder)
    return folders
