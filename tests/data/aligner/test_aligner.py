"""The aligner on signals whose phones are tones of known duration, and trained on a little real speech."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from valle.common.errors import UserError
from valle.data.aligner import Aligner, Alignment, train_aligner
from valle.data.aligner.models import FRAME_SECONDS
from valle.data.aligner.training import Schedule
from valle.data.cuts import cut_audio, cut_text, load_cuts
from valle.data.prepare import prepare_folder
from valle.tokenizers.text import PhonemeTokenizer

RATE = 16000
VOCAB = ["<pad>", "<unk>", " ", ",", "a", "ˈa", "ɪ", "s", "m", "t", "ɾ"]
FORMANTS = {
    "a": (700, 1200),
    "ɪ": (300, 2300),
    "s": (5200, 6400),
    "m": (200, 900),
    "t": (3200, 4300),
    "ɾ": (1600, 2900),
}
PHONES = [VOCAB.index(p) for p in ("a", "ˈa", "ɪ", "s", "m", "t", "ɾ")]
SPACE, COMMA = VOCAB.index(" "), VOCAB.index(",")


def sound(symbol: str, n: int, noise: torch.Generator) -> torch.Tensor:
    """Two tones for a phone, faint noise for a boundary; [n] samples."""
    time = torch.arange(n) / RATE
    tones = [torch.sin(2 * torch.pi * hz * time) for hz in FORMANTS.get(symbol.strip("ˈ"), ())]
    return 0.2 * sum(tones, torch.zeros(n)) + 0.002 * torch.randn(n, generator=noise)


def spoken(rng: random.Random) -> tuple[list[int], torch.Tensor, list[int]]:
    """An utterance: tokens, waveform [S], and each token's true duration in 10 ms."""
    tokens = [SPACE]
    for _ in range(rng.randint(2, 4)):
        for _ in range(rng.randint(1, 4)):
            before = next((VOCAB[t].strip("ˈ") for t in reversed(tokens) if t in PHONES), None)
            tokens.append(rng.choice([p for p in PHONES if VOCAB[p].strip("ˈ") != before]))  # two alike have no border
        tokens.append(rng.choice([SPACE, SPACE, COMMA]))
    pauses = {SPACE: 0.3, COMMA: 0.8}
    lengths = [
        rng.randint(4, 14) if t in PHONES else rng.randint(8, 20) if rng.random() < pauses[t] else 0 for t in tokens
    ]
    noise = torch.Generator().manual_seed(rng.randrange(1 << 30))
    return (
        tokens,
        torch.cat([sound(VOCAB[t], n * RATE // 100, noise) for t, n in zip(tokens, lengths, strict=True)]),
        lengths,
    )


@pytest.fixture(scope="module")
def corpus() -> list[tuple[list[int], torch.Tensor, list[int]]]:
    rng = random.Random(0)
    return [spoken(rng) for _ in range(80)]


@pytest.fixture(scope="module")
def aligner(corpus) -> Aligner:
    schedule = Schedule(iterations=8, splits=(5,), short_iterations=2)
    return Aligner.train([(tokens, wav) for tokens, wav, _ in corpus], VOCAB, schedule=schedule)


def frames(wav: torch.Tensor) -> int:
    return -(-wav.numel() // 320)


def test_a_flat_start_finds_the_boundaries_of_unseen_utterances(aligner):
    rng = random.Random(1)
    unseen = [spoken(rng) for _ in range(20)]
    found = aligner.alignments([u[0] for u in unseen], [u[1] for u in unseen])
    errors = np.concatenate([a.ends - np.cumsum(n) * FRAME_SECONDS for a, (_, _, n) in zip(found, unseen, strict=True)])
    assert np.mean(np.abs(errors) < 0.011) > 0.95
    assert np.mean(np.abs(errors) < 0.031) > 0.98


def test_silences_are_found_where_they_are_and_skipped_where_they_are_not(aligner):
    rng = random.Random(2)
    unseen = [spoken(rng) for _ in range(20)]
    found = aligner.alignments([u[0] for u in unseen], [u[1] for u in unseen])
    verdicts = [
        (true > 0) == (length > 0)
        for a, (tokens, _, lengths) in zip(found, unseen, strict=True)
        for token, true, length in zip(tokens, lengths, np.diff(a.ends, prepend=0), strict=True)
        if token in (SPACE, COMMA)
    ]
    assert np.mean(verdicts) > 0.97


def test_durations_count_codec_frames_of_every_token(aligner, corpus):
    tokens, wav, lengths = corpus[0]
    (durations,) = aligner.align([tokens], [wav], [frames(wav)])
    assert sum(durations) == frames(wav)
    assert max(abs(d - n / 2) for d, n in zip(durations, lengths, strict=True)) <= 1.5


def test_a_batch_gives_what_each_utterance_gives_alone(aligner, corpus):
    tokens, wavs, _ = zip(*corpus[:12], strict=True)
    n_frames = [frames(wav) for wav in wavs]
    alone = [aligner.align([t], [w], [n])[0] for t, w, n in zip(tokens, wavs, n_frames, strict=True)]
    assert aligner.align(tokens, wavs, n_frames) == alone
    assert aligner.align([], [], []) == []


def test_gain_does_not_matter(aligner, corpus):
    tokens, wav, _ = corpus[1]
    loud, quiet = aligner.align([tokens] * 2, [wav, wav / 50], [frames(wav)] * 2)
    assert loud == quiet


def test_speech_shorter_than_its_phones_is_not_aligned(aligner):
    tokens = [SPACE, *PHONES * 3, SPACE]
    wav = torch.randn(1600)
    assert aligner.align([tokens, tokens, []], [wav, wav[:100], wav], [5, 1, 5]) == [None, None, None]


def test_a_wrong_transcript_is_not_aligned(aligner, corpus):
    rng = random.Random(3)
    tokens, wav, _ = spoken(rng)
    others = [t for t, *_ in corpus if len(t) == len(tokens) and t != tokens]
    results = aligner.align([tokens, *others], [wav] * (1 + len(others)), [frames(wav)] * (1 + len(others)))
    assert results[0] is not None
    assert others
    assert not any(results[1:])


def test_a_saved_aligner_is_the_same_one(aligner, corpus, tmp_path):
    path = tmp_path / "new" / "aligner.safetensors"
    aligner.save(path)
    loaded = Aligner.load(path)
    tokens, wavs, _ = zip(*corpus[:5], strict=True)
    n_frames = [frames(wav) for wav in wavs]
    assert loaded.align(tokens, wavs, n_frames) == aligner.align(tokens, wavs, n_frames)
    assert loaded.fingerprint == aligner.fingerprint != aligner.adapted(frame_rate=75).fingerprint
    assert loaded.vocab == VOCAB


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="not found"):
        Aligner.load(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no aligner"):
        Aligner.load(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="safetensors"):
        Aligner.load(tmp_path / "text.safetensors")


def test_the_wrong_codec_rate_is_noticed_and_can_be_set(aligner, corpus):
    tokens, wav, lengths = corpus[0]
    n_frames = round(wav.numel() / RATE * 75)
    with pytest.raises(UserError, match="frames per second"):
        aligner.align([tokens], [wav], [n_frames])
    (durations,) = aligner.adapted(frame_rate=75).align([tokens], [wav], [n_frames])
    assert max(abs(d - 0.75 * n) for d, n in zip(durations, lengths, strict=True)) <= 2.25


def test_phones_unknown_to_the_training_borrow_a_model(aligner, corpus):
    tokens, wav, _ = corpus[2]
    longer = ["ɪː" if symbol == "ɪ" else symbol for symbol in VOCAB]
    n = frames(wav)
    assert aligner.adapted(vocab=longer).align([tokens], [wav], [n]) == aligner.align([tokens], [wav], [n])
    strange = aligner.adapted(vocab=["ʘ" if symbol == "t" else symbol for symbol in VOCAB])
    assert strange.alignments([tokens], [wav])[0] is not None


def test_training_without_a_usable_utterance_says_so():
    with pytest.raises(UserError, match="as many frames"):
        Aligner.train([([SPACE, *PHONES, SPACE], torch.randn(800))], VOCAB, min_count=1)
    with pytest.raises(UserError, match="20 times"):
        Aligner.train([([SPACE, *PHONES, SPACE], torch.randn(RATE))], VOCAB)


@given(
    lengths=st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, 1)), min_size=1, max_size=30),
    spare=st.integers(-3, 40),
)
def test_durations_keep_the_sum_and_the_minima(lengths, spare):
    seconds, minimum = (list(column) for column in zip(*lengths, strict=True))
    n_frames = max(0, sum(minimum) + spare)
    durations = Alignment(np.cumsum(seconds), 0.0).durations(minimum, n_frames, 50.0)
    if spare < 0 and sum(minimum) > n_frames:
        assert durations is None
    else:
        assert sum(durations) == n_frames
        assert all(d >= m for d, m in zip(durations, minimum, strict=True))


def test_durations_are_the_rounded_ends_where_nothing_forbids_it():
    assert Alignment(np.array([0.0, 0.101, 0.139, 0.3]), 0.0).durations([0, 1, 1, 0], 15, 50.0) == [0, 5, 2, 8]
    # A phone too short for a frame takes one from its neighbour, not from the utterance.
    assert Alignment(np.array([0.1, 0.101, 0.3]), 0.0).durations([1, 1, 1], 15, 50.0) == [5, 1, 9]


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
