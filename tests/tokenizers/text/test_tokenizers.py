"""Text tokenizers: ids, boundaries, unknown symbols, serialisation."""

from __future__ import annotations

import csv
import json
import logging
import pickle
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valle.common.errors import UserError
from valle.tokenizers.text import BPETokenizer, PhonemeTokenizer, TextTokenizer, phonemize, text_tokenizer_from_dict
from valle.tokenizers.text.characters import MARKS

GERMAN = ["Schöne Bücher kosten zwölf Mark.", "Ich möchte fröhliche Züge über Köln.", "Acht Mädchen hören Töne."]


@pytest.fixture(scope="module")
def english() -> PhonemeTokenizer:
    return PhonemeTokenizer()


@pytest.fixture(scope="module")
def transcripts() -> list[str]:
    table = resources.files("valle") / "assets" / "eval" / "list.tsv"
    with table.open(encoding="utf-8") as lines:
        return [row["text"] for row in csv.DictReader(lines, delimiter="\t")]


@pytest.fixture(scope="module")
def bpe(transcripts: list[str]) -> BPETokenizer:
    return BPETokenizer.train(transcripts, vocab_size=120)


def test_each_phone_is_a_token(english: PhonemeTokenizer) -> None:
    ids = english.encode("Hello, world!")
    assert [english.vocab[index] for index in ids] == [" ", "h", "ə", "l", "ˈoʊ", ",", "w", "ˈɜː", "l", "d", "!"]
    assert english.decode([0, *ids, 0, 0]) == "həlˈoʊ, wˈɜːld!"


def test_boundaries_are_space_and_punctuation(english: PhonemeTokenizer) -> None:
    assert {english.vocab[index] for index in english.boundary_ids} == set(" ,.?!;:…—")
    assert english.vocab[english.pad_id] == "<pad>"
    assert english.vocab[english.unk_id] == "<unk>"


def test_ids_of_the_default_vocabulary_never_change(english: PhonemeTokenizer) -> None:
    """Trained models depend on it: add phones at the end, and a new model gets a new fingerprint."""
    assert english.fingerprint == "eb01c5ad786caf57"


def test_default_vocabulary_covers_real_transcripts(
    english: PhonemeTokenizer, transcripts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for ids in map(english.encode, transcripts):
        assert english.unk_id not in ids
        assert ids[0] in english.boundary_ids
        assert ids[-1] in english.boundary_ids
        boundaries = [index in english.boundary_ids for index in ids]
        assert not any(a and b for a, b in pairwise(boundaries))
    assert not caplog.records


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_text_is_encoded_or_refused(text: str) -> None:
    tokenizer = PhonemeTokenizer()
    try:
        ids = tokenizer.encode(text)
    except UserError as error:
        assert "nothing to say" in str(error)  # noqa: PT017
    else:
        assert len(ids) > 2
        assert ids[0] == tokenizer.vocab.index(" ")
        assert ids[-1] in tokenizer.boundary_ids


@pytest.mark.parametrize("text", ["", " ", "?!", "😀", "* * *"])
def test_nothing_to_say_is_an_error(text: str, english: PhonemeTokenizer, bpe: BPETokenizer) -> None:
    for tokenizer in (english, bpe):
        with pytest.raises(UserError, match="nothing to say"):
            tokenizer.encode(text)


def test_unknown_phones_are_taken_apart_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    small = PhonemeTokenizer(["h", "l", "oʊ", "ˈɜː", "d"])
    assert small.decode(small.encode("hello")) == "h<unk>loʊ"  # no ə; ˈoʊ loses its stress
    small.encode("hello")
    assert [("ˈoʊ" in record.message, "'ə'" in record.message) for record in caplog.records] == [
        (False, True),
        (True, False),
    ]


def test_length_and_tone_are_dropped_before_the_sound(
    english: PhonemeTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ids = english.encode("Schöne Bücher", "de")
    assert english.unk_id in ids  # ø and y have no English neighbour
    assert "'ˈøː'" in caplog.text
    chinese = english.encode("你", "zh")  # n i2
    assert english.decode(chinese) == "ni"


def test_training_extends_without_moving_ids(english: PhonemeTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    both = PhonemeTokenizer.train(GERMAN, "de", extend=english, min_count=1)
    assert both.vocab[: len(english.vocab)] == english.vocab
    assert "ˈyː" in both.vocab
    assert both.encode("Hello") == english.encode("Hello")
    assert both.unk_id not in both.encode(GERMAN[0], "de")
    assert both.fingerprint != english.fingerprint
    assert not caplog.records


def test_rare_phones_are_left_out() -> None:
    seen = PhonemeTokenizer.train(["see see see me"], min_count=3).vocab
    assert "s" in seen
    assert "m" not in seen
    with pytest.raises(UserError, match="give more text"):
        PhonemeTokenizer.train(["see"], min_count=3)


def test_bpe_learns_pieces_and_ignores_capitals(bpe: BPETokenizer) -> None:
    ids = bpe.encode("He showed ME 2 cats.")
    assert bpe.decode([0, *ids, 0]) == bpe.decode(bpe.encode("he showed me two cats.")) == "he showed me two cats."
    assert bpe.vocab[:2] == ["<pad>", "<unk>"]
    assert len(bpe.vocab) == 120
    assert not bpe.boundary_ids


def test_bpe_names_unknown_characters_once(bpe: BPETokenizer, caplog: pytest.LogCaptureFixture) -> None:
    assert bpe.unk_id in bpe.encode("a ж")
    bpe.encode("a ж")
    assert len(caplog.records) == 1
    assert "'ж'" in caplog.text


def test_bpe_refuses_what_it_cannot_learn_from() -> None:
    with pytest.raises(UserError, match="no text"):
        BPETokenizer.train(["😀"])
    with pytest.raises(UserError, match="vocabulary of 5000"):
        BPETokenizer.train(["a few words"], vocab_size=5000)


ENDS = [".", "!", "?", ",", ";", ":", " —", "…", "...", "", '."', "?)", " (yes)", "? '", "! 你好"]


@pytest.mark.parametrize("name", ["english", "bpe"])
@pytest.mark.parametrize("ends", [".", ".?", ".!…", ",", "", MARKS])
def test_whatever_a_text_ends_in_the_ids_end_in_a_known_mark(
    name: str, ends: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: TextTokenizer = request.getfixturevalue(name)
    for end in ENDS:
        last = tokenizer.vocab[tokenizer.encode(f"Was he late{end}", ends=ends)[-1]]
        assert last in ends if ends else last not in MARKS, end


@pytest.mark.parametrize(
    ("text", "ends", "same"),
    [
        ("It is late", ".?", "It is late."),
        ("It is late…", ".?", "It is late."),
        ("It is late!", ".?,", "It is late."),
        ("Is it late?", ".?", "Is it late?"),
        ("Is it late?", ".", "Is it late."),
        ("It is late;", ".,", "It is late,"),
        ("It is late —", ".?", "It is late."),
        ("It is late,", ".,", "It is late,"),
        ("It is late", ",", "It is late,"),
        ("It, too, is late!", "", "It, too, is late"),
        ("“It is late!” (he said)", ".?", "It is late! he said."),
    ],
)
@pytest.mark.parametrize("name", ["english", "bpe"])
def test_an_unknown_end_becomes_the_nearest(
    name: str, text: str, ends: str, same: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: TextTokenizer = request.getfixturevalue(name)
    assert tokenizer.encode(text, ends=ends) == tokenizer.encode(same)


@pytest.mark.parametrize("name", ["english", "bpe"])
def test_round_trip_through_json_and_pickle(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: TextTokenizer = request.getfixturevalue(name)
    for copy in (
        text_tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert type(copy) is type(tokenizer)
        assert copy.vocab == tokenizer.vocab
        assert copy.boundary_ids == tokenizer.boundary_ids
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode("He said, no.") == tokenizer.encode("He said, no.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "known kinds: phonemes, bpe"),
        ({"kind": "letters"}, "'letters'"),
        ({"kind": "phonemes"}, "'phonemes' text tokenizer is damaged"),
        ({"kind": "phonemes", "phones": ["a", "a"]}, "'a' more than once"),
        ({"kind": "bpe", "model": "AAAA"}, "SentencePiece model is damaged"),
        ({"kind": "bpe", "model": "?"}, "damaged"),
    ],
)
def test_damaged_descriptions(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        text_tokenizer_from_dict(values)


def test_same_phones_as_the_phonemizer(english: PhonemeTokenizer) -> None:
    assert [english.vocab[index] for index in english.encode("The quick brown fox.")] == phonemize(
        "The quick brown fox."
    )
