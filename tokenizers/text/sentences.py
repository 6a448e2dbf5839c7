"""Long text to sentences short enough to be spoken in one go: `split_sentences`."""

from __future__ import annotations

import re

from valle.tokenizers.text.characters import without_markup
from valle.tokenizers.text.english_words import (
    BEFORE_NUMBERS,
    INSIDE_WORDS,
    LATIN,
    MONTHS,
    TITLES,
    WEEKDAYS,
    WORDS,
    is_label,
    is_street,
    starts_sentence,
)

_CLOSING = "\"'”’»)\\]」』"
# The looks behind start each attempt at the first of many dots or spaces only, or the time would grow as their square.
_SENTENCE_END = re.compile(
    rf"(?:(?<![.!?…])[.!?…]+[{_CLOSING}]*(?:</?\w{{1,12}}>)*(?=\s)|[。！？．]+[{_CLOSING}]*)\s*|(?<!\s)\s*\n\s*\n\s*"
    r"|\n(?=[ \t]*(?:[-*•–]|#{1,6}|\d{1,3}[.)])[ \t])"  # the next line is a heading or an item of a list
)
_BLANK_LINE = re.compile(r"\n\s*\n")
_CLAUSE_END = re.compile(rf"[,;:—–、，；：][{_CLOSING}]*(?:\s|(?<=[、，；：—]))")
_LAST_WORD = re.compile(rf"(?<![^\W_])([^\W\d_]+(?:\.[^\W\d_]+)*)\.[{_CLOSING}]*$")
_LIST_NUMBER = re.compile(r"\(?\d{1,3}[.)]+\s*")
_DATE_WORDS = MONTHS.union(WEEKDAYS)
_UNIT = re.compile(r"\d\s?(?:fl\.\s)?(?:in|ft|fl|oz|lbs?|yds?|mi|mins?|hrs?|secs?|sq|cu|tbsp|tsp)\.$")
_MAX_LOOK = 40
_NEVER_LAST = frozenset(map(str.lower, {*TITLES, *INSIDE_WORDS, *LATIN, "st"}))


def split_sentences(text: str, max_chars: int = 200) -> list[str]:
    """The sentences of `text` in order, none longer than `max_chars` characters (at least 1).

    Knows abbreviations, initials, numbers, quotations, lists and blank lines. A sentence that is too long is cut at the
    last clause punctuation that fits, else at the last space, else anywhere. No character but white space is lost.
    """
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, got {max_chars}")
    pieces = [piece for sentence in _sentences(text.strip()) for piece in _cut(sentence, max_chars)]
    return _join_unspeakable(pieces, max_chars)


def _sentences(text: str) -> list[str]:
    sentences, start = [], 0
    has_capitals = any(map(str.isupper, text))
    for match in _SENTENCE_END.finditer(text):
        following = text[match.end() : match.end() + _MAX_LOOK].lstrip("\"'“‘«([")
        next_word = re.match(r"\w*", following)[0]  # type: ignore[index]  # it always matches
        # "'What?' he said", "approx. five"; but who writes no capitals at all still writes sentences.
        goes_on = next_word[:1].islower() and (has_capitals or match[0].strip()[-1:] in _CLOSING)
        if _BLANK_LINE.search(match[0]) or not (goes_on or _is_abbreviation(text[start : match.end()], following)):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    return [sentence for sentence in (*sentences, text[start:].strip()) if sentence]


def _is_abbreviation(sentence: str, following: str) -> bool:
    """Whether the period that `sentence` ends in belongs to its last word, or to its number in a list, only."""
    if _LIST_NUMBER.fullmatch(sentence):
        return True
    end = sentence[-_MAX_LOOK:].rstrip()
    word = _LAST_WORD.search(end)
    if not word:
        return False
    last = word[1]
    if last.lower() in _NEVER_LAST:
        return not (last == "St" and is_street(end, word.start()) and starts_sentence(following))
    if following[:1].isdigit() and (last.lower() in BEFORE_NUMBERS or last in _DATE_WORDS):
        return True
    if last.lower() == "etc" or _UNIT.search(end):
        return following[:1].islower()
    if last.lower() in WORDS or "." in last:  # "Inc.", "U.S.", "p.m."
        return following != "" and not starts_sentence(following, last, sentence.rstrip()[: -len(word[0])])
    return len(last) == 1 and last.isupper() and last != "I" and not is_label(end, word.start(), following)


def _cut(sentence: str, max_chars: int) -> list[str]:
    pieces = []
    while len(sentence) > max_chars:
        cuts = _CLAUSE_END.finditer(sentence, 0, max_chars + 1)
        clauses = [cut.end() for cut in cuts if cut.end() <= max_chars or cut[0][-1].isspace()]
        space = sentence.rfind(" ", 0, max_chars + 1)
        # A scrap before an early comma would be worse to hear than a cut at a space.
        at = clauses[-1] if clauses and clauses[-1] >= max_chars // 4 else space if space > 0 else max_chars
        pieces.append(sentence[:at].strip())
        sentence = sentence[at:].strip()
    return [piece for piece in (*pieces, sentence) if piece]


def _join_unspeakable(pieces: list[str], max_chars: int) -> list[str]:
    """A piece of nothing but punctuation goes with the one before it, or is all there is."""
    joined: list[str] = []
    for piece in pieces:
        speakable = any(character.isalnum() for character in without_markup(piece))
        if joined and not speakable and len(joined[-1]) + 1 + len(piece) <= max_chars:
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined
