"""An aligner trained on a little real speech."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from valle.common.errors import UserError
from valle.data.aligner import Aligner
from valle.data.cuts import cut_audio, cut_text, load_cuts
from valle.data.prepare import prepare_folder
from valle.data.train_aligner import train_aligner
from valle.tokenizers.text import PhonemeTokenizer


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> Path:
    table = Path(str(files("valle") / "assets/eval/list.tsv"))
    ids = [line.split("\t")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:25]]
    return prepare_folder(table, tmp_path_factory.mktemp("prepared"), where={"id": ids}, jobs=1).cuts


def test_real_speech_is_loud_in_its_phones_and_quiet_in_its_pauses(cuts, tmp_path):
    tokenizer = PhonemeTokenizer()
    train_aligner(cuts, tokenizer, tmp_path / "aligner.safetensors")
    aligner = Aligner.load(tmp_path / "aligner.safetensors")
    kept = list(load_cuts(cuts))
    wavs = [cut_audio(cut, 16000) for cut in kept]
    tokens = [tokenizer.encode(cut_text(cut)) for cut in kept]
    vowel = [any(c in "aeiouɑɔɪʊɛæʌ" for c in symbol) for symbol in tokenizer.vocab]
    levels: dict[str, list[float]] = {"vowel": [], "pause": []}
    durations = aligner.align(tokens, wavs, [-(-wav.numel() // 320) for wav in wavs])
    assert sum(d is not None for d in durations) >= 0.9 * len(wavs)
    for ids, wav, lengths in zip(tokens, wavs, durations, strict=True):
        ends = np.cumsum(lengths or [0] * len(ids)) * 320
        for token, start, end in zip(ids, [0, *ends[:-1]], ends, strict=True):
            kind = "vowel" if vowel[token] else "pause" if token in tokenizer.boundary_ids else "other"
            if kind in levels and end - start >= 3 * 320:
                inner = wav[start + 320 : end - 320]
                levels[kind].append(10 * float(inner.square().mean().clamp_min(1e-10).log10()))
    assert len(levels["pause"]) > 2 * len(wavs)
    assert np.median(levels["vowel"]) - np.median(levels["pause"]) > 10


def test_cuts_without_text_cannot_train_an_aligner(cuts, tmp_path):
    silent = load_cuts(cuts).drop_supervisions()
    silent.to_file(tmp_path / "cuts.jsonl.gz")
    with pytest.raises(UserError, match=r"no cut of .* has a text"):
        train_aligner(tmp_path / "cuts.jsonl.gz", PhonemeTokenizer(), tmp_path / "aligner.safetensors")
