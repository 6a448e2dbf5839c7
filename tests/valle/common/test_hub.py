from __future__ import annotations

import os
from pathlib import Path

import pytest

from valle.common.errors import UserError
from valle.common.hub import EMBEDDED, find_model
from valle.data.aligner import Aligner
from valle.lm import load_lm
from valle.tokenizers.codecs import load_codec
from valle.tokenizers.text import read_text_tokenizer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a model that the Hub's cache holds, laid out as huggingface_hub does; there is no network."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit, cached = "0" * 40, tmp_path / "models--someone--voice"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    for file in EMBEDDED.iterdir():
        os.link(file, cached / "snapshots" / commit / file.name)
    return "someone/voice"


def test_every_loader_knows_a_model_by_its_name(hub: str) -> None:
    for name in ("embedded", hub, EMBEDDED):
        assert load_codec(name).fingerprint == load_codec(EMBEDDED).fingerprint
        assert load_lm(name, "ar").config == load_lm(EMBEDDED, "ar").config
        assert read_text_tokenizer(name).fingerprint == read_text_tokenizer(EMBEDDED).fingerprint
        for aligner in (name, f"{name}/aligner.safetensors"):
            assert Aligner.load(aligner).fingerprint == Aligner.load(EMBEDDED / "aligner.safetensors").fingerprint


def test_what_is_here_comes_before_the_hub(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(hub).mkdir(parents=True)
    assert find_model(hub) == Path(hub)
    Path("embedded").mkdir()
    assert find_model("./embedded") == Path("embedded")
    assert find_model("embedded") == find_model(None) == EMBEDDED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "not found: nothing; give a file or folder"),
        ("out/aligner.safetensors", "not found: out/aligner.safetensors"),
        ("/a/b", "not found: /a/b"),
        ("embedded/nothing.json", "not found: embedded/nothing.json"),
        ("someone/voice/nothing.json", "'someone/voice' on the Hugging Face Hub has no nothing.json"),
        ("runs/typo", "^there is no folder runs/typo; the Hugging Face Hub, whose id it could be, cannot be reached"),
        ("runs/typo/model.safetensors", "^there is no folder runs/typo; "),
    ],
)
def test_a_name_of_nothing_is_refused(hub: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_model(name)
