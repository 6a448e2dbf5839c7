"""Long text to sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valle.tokenizers.text import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith went to the U.S. in 1999.", "He lived on Main St. in St. Paul.", "It cost $3.50!"],
        ['"What?" he said.', '"No."', "She left."],
        ["“Go!”", "He left.", "(See Fig. 3.)", "Next."],
        ["No. 5 is alive.", "I said no.", "We won."],
        ["Apples etc. and pears.", "Also etc.", "But J. R. R. Tolkien knew.", "It is I.", "Yes."],
        ["He sat.", "Then 3 p.m. came.", "It was 5 p.m.", "She left on Fri. 5 May."],
        ["It was dark... and so on… or not.", "Really?!", "Yes."],
        ["hello there.", "how are you?", "i am fine"],
        ["Pi is 3.14, v. 1.2.3.", "See example.com."],
        ["Apple Inc. was sued.", "By Co. Ltd. of Rome."],
        ["She came on Jan. 3.", "He left in Sept. 1999."],
        ["1. Wash it.", "2. Dry it.", "3. Done."],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


def test_text_without_spaces_between_sentences() -> None:
    assert split_sentences("你好。世界很大！真的吗？是的") == ["你好。", "世界很大！", "真的吗？", "是的"]


def test_blank_lines_end_sentences_and_line_breaks_do_not() -> None:
    assert split_sentences("Chapter One\n\nIt was\ndark. Mr.\nLee\n \nslept") == [
        "Chapter One",
        "It was\ndark.",
        "Mr.\nLee",
        "slept",
    ]


def test_items_of_a_list_are_sentences() -> None:
    assert split_sentences("You need:\n- milk\n- 2 eggs\n 10) salt\nand love") == [
        "You need:",
        "- milk",
        "- 2 eggs",
        "10) salt\nand love",
    ]


@pytest.mark.parametrize("text", ["." * 50_000, "a" + " " * 50_000 + "b", "A. " * 20_000, '."' * 20_000])
def test_time_does_not_grow_as_the_square_of_the_text(text: str) -> None:
    # Searching each of the dots or spaces to the end of all took minutes.
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_long_sentences_are_cut_at_clauses_then_spaces_then_anywhere() -> None:
    text = "A long sentence, with clauses, that goes on and on; it never stops because nobody asked"
    assert split_sentences(text, 40) == [
        "A long sentence, with clauses,",
        "that goes on and on;",
        "it never stops because nobody asked",
    ]
    assert split_sentences("one two three four", 9) == ["one two", "three", "four"]
    assert split_sentences("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert split_sentences("costs 1,000,000 pounds", 12) == ["costs", "1,000,000", "pounds"]


def test_unspeakable_pieces_are_not_left_alone() -> None:
    assert split_sentences("One! ... Two") == ["One! ...", "Two"]


def test_nothing() -> None:
    assert split_sentences(" \n ") == []


def test_bad_limit() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        split_sentences("a", 0)


@given(st.text(alphabet="ab AB.?!,;:\n\"'。，—1 …"), st.integers(1, 20))
def test_nothing_is_lost_and_nothing_too_long(text: str, max_chars: int) -> None:
    pieces = split_sentences(text, max_chars)
    assert all(0 < len(piece) <= max_chars for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
