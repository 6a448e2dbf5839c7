from __future__ import annotations

import pytest

from valle.common.errors import UserError
from valle.eval.judges.text import normalise_for_scoring, score_text


def test_errors_counted_by_hand() -> None:
    score = score_text("a b c d e f", "a x c e f g")
    assert (score.words.substitutions, score.words.deletions, score.words.insertions) == (1, 1, 1)
    assert score.words.rate == 3 / 6
    assert score_text("a cat sat", "a cut sat").characters.rate == pytest.approx(1 / 9)


def test_more_words_than_there_should_be_make_more_than_100_percent() -> None:
    assert score_text("hello", "well hello there my friend").words.rate == 4


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("Mr. Smith paid $5!", "MISTER SMITH PAID FIVE DOLLARS"),
        ("Dr. Hale saw Mrs. Lee", "dr hale saw mrs lee"),
        ("MISTER HALE", "mr hale"),
        ("It was 1999.", "it was nineteen ninety-nine"),
        ("twenty-one well-known men", "Twenty one well known men"),
        ("I don’t know", "i don't know"),
        ("'Tis the boys' book", "tis the boys book"),
        ("“Yes” — he said; no…", "yes he said no"),
    ],
)
def test_spelling_is_no_error(reference: str, hypothesis: str) -> None:
    assert score_text(reference, hypothesis).words.errors == 0


def test_apostrophes_within_words_count() -> None:
    assert normalise_for_scoring("He'll see the man's dog") == "he'll see the man's dog"
    assert score_text("we'll go", "well go").words.errors == 1


def test_vowel_signs_are_letters() -> None:
    assert normalise_for_scoring("नमस्ते दुनिया।", "hi") == "नमस्ते दुनिया"


def test_nothing_heard_is_all_wrong() -> None:
    score = score_text("say it now", "")
    assert score.words.rate == score.characters.rate == 1
    assert score.diff == "[-say it now-]"
    assert score.skipped == ["say it now"]


def test_a_reference_without_words_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="no words"):
        score_text("...", "anything")


def test_diff_marks_each_edit() -> None:
    assert score_text("the quick brown fox", "the quick red fox ran").diff == "the quick [-brown-] {+red+} fox {+ran+}"


def test_skipped_words_are_found() -> None:
    assert score_text("one day the old man went home", "one day home").skipped == ["the old man went"]
    assert score_text("one day the old man went home", "one day the man went home").skipped == []


@pytest.mark.parametrize(
    ("hypothesis", "repeated"),
    [
        ("the old man the old man went home", ["the old man"]),
        ("the old man went went home", ["went"]),
        ("the old man went home home home", ["home"]),
        ("the old man went home the old man went home", ["the old man went home"]),
        ("the very old man went home", []),
        ("the old man went home", []),
    ],
)
def test_repeated_words_are_found(hypothesis: str, repeated: list[str]) -> None:
    assert score_text("the old man went home", hypothesis).repeated == repeated


def test_a_repetition_in_the_text_is_none_of_the_speaker() -> None:
    assert score_text("thou also thou also", "thou also thou also").repeated == []
    assert score_text("thou also thou also", "thou also thou also thou also").repeated == ["thou also"]
