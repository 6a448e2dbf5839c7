"""The table of texts with the words that a careful person reads: `readings.tsv`."""

from __future__ import annotations

import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from valle.tokenizers.text import normalise, phonemize, split_sentences

TABLE = Path(__file__).with_name("readings.tsv")
KNOWN_FAULTS = {
    "He moved to Portland, ME.": "states without a ZIP code that are words, too (IN, OR, ME, HI)",
    "It was built in the U.S. Congress agreed.": "what follows may as well be a name (U.S. Congress)",
    "We need 30 200 mg pills.": "may as well be 30,200 written with a space",
}
"""Texts of the table that are read wrong today, and why."""


def rows() -> list[dict[str, str]]:
    """kind, text ("\\n" is a line break) and words: a regular expression, with " / " between sentences."""
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def heard(text: str) -> str:
    """The words of `text` as they are said: lower case, spelled letters apart, " / " between sentences."""
    sentences = [re.findall(r"[^\W_]+(?:'[^\W_]+)*", normalise(sentence)) for sentence in split_sentences(text)]
    said = (" ".join(filter(None, map(heard_word, words))) for words in sentences)
    return " / ".join(filter(None, said))


@cache
def heard_word(word: str) -> str:
    """`word` as espeak-ng says it within a sentence: letter by letter, as a word, or not at all."""
    if not word.isascii() and not phonemize(word):
        return ""
    capitals = re.fullmatch(r"([A-Z]{2,})(s?)", word)
    if capitals and _sounds(word).rstrip("sz" * bool(capitals[2])) == _sounds("-".join(capitals[1])):
        return " ".join(word.lower())
    return word.lower()


def _sounds(word: str) -> str:
    # Without stress and length, which depend on the neighbours.
    return re.sub("[ˈˌː ]", "", "".join(phonemize(f"say {word} now"))).removeprefix("seɪ").removesuffix("naʊ")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["text"])
def test_reading(row: dict[str, str]) -> None:
    right = re.fullmatch(row["words"], heard(row["text"].replace(r"\n", "\n"))) is not None
    assert right != (row["text"] in KNOWN_FAULTS), heard(row["text"])


def test_the_table_is_large_and_nearly_all_of_it_right() -> None:
    texts = [row["text"] for row in rows()]
    assert len(set(texts)) == len(texts) >= 400
    assert KNOWN_FAULTS.keys() <= set(texts)
    assert len(KNOWN_FAULTS) <= 0.03 * len(texts)
    assert min(Counter(row["kind"] for row in rows()).values()) >= 8
