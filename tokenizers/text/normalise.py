"""Written text to the words that a reader says: `normalise`."""

from __future__ import annotations

import re

from valle.tokenizers.text.characters import clean, tidy
from valle.tokenizers.text.english_calendar import speak_dates, speak_times
from valle.tokenizers.text.english_quantities import (
    join_groups,
    speak_measures,
    speak_money,
    speak_plain_numbers,
    speak_ranges,
)
from valle.tokenizers.text.english_symbols import (
    speak_addresses,
    speak_symbols,
    speak_symbols_in_words,
    speak_telephone_numbers,
)
from valle.tokenizers.text.english_words import (
    is_in_capitals,
    lower_capitals,
    speak_abbreviations,
    speak_roman_numerals,
)

_MAX_PASSES = 4


def normalise(text: str, language: str = "en-us") -> str:
    """Spell out what is written in digits, symbols and abbreviations; drop what nobody can say.

    `language` is an espeak-ng code. English gets all rules and comes out without digits; other languages get
    Unicode clean-up and numbers (num2words), and espeak-ng reads the rest. "" when nothing remains to be said.
    The result is a fixed point: normalising it again changes nothing.
    """
    for _ in range(_MAX_PASSES):
        spoken = _normalise_once(text, language.lower())
        if spoken == text:
            break
        text = spoken
    return text


def _normalise_once(text: str, language: str) -> str:
    text = clean(text)
    if language.split("-")[0] == "en":
        text = speak_english(text, british=language not in ("en", "en-us", "en-us-nyc"))
    else:
        text = speak_numbers(text, language)
    return tidy(text)


def speak_english(text: str, british: bool) -> str:
    """`text` (from `characters.clean`) in words, without digits or symbols.

    `british`: days before months, and "one hundred and five".
    """
    # Addresses hold every symbol of the other rules; then what is known by its capitals, until they are lowered.
    text = speak_addresses(text)
    in_capitals = is_in_capitals(text)
    text = speak_abbreviations(text)
    text = speak_roman_numerals(text, british)
    text = speak_dates(text, british)
    text = join_groups(speak_telephone_numbers(text))
    text = lower_capitals(text, whole=in_capitals)
    # From the longest pattern of digits to the bare number.
    text = speak_times(text)
    text = speak_money(text, british)
    text = speak_ranges(text)
    text = speak_measures(text, british)
    text = speak_symbols_in_words(text)
    text = speak_plain_numbers(text, british)
    return speak_symbols(text)


# num2words writes Japanese numbers in kanji, which espeak-ng cannot read; espeak-ng reads the digits itself.
_LEFT_TO_ESPEAK = frozenset({"ja"})
_DECIMAL_POINT = frozenset({"ko", "th", "he", "bn", "te", "kn", "ar", "fa", "am", "cy", "es-419"})
_FROM_ESPEAK = {"nb": "no", "kk": "kz", "pt-br": "pt_BR", "fr-be": "fr_BE", "fr-ch": "fr_CH"}
_MAX_DIGITS = 15


def speak_numbers(text: str, language: str) -> str:
    """Replace the numbers of `text` by words where num2words knows the language, else leave them to espeak-ng."""
    if not any(character.isdigit() for character in text):
        return text
    from num2words import CONVERTER_CLASSES, num2words  # imports all its languages: 0.2 s that few texts need

    base = language.split("-")[0]
    code = _FROM_ESPEAK.get(language, base)
    if code not in CONVERTER_CLASSES or code in _LEFT_TO_ESPEAK:
        return text
    decimal, thousands = (".", ",") if {language, base} & _DECIMAL_POINT else (",", ".")
    number = re.compile(
        rf"((?<![\w-])-)?(\d{{1,3}}(?:[{thousands} ']\d{{3}})+(?!\d)|\d+)(?:{re.escape(decimal)}(\d+))?"
    )

    def speak(match: re.Match[str]) -> str:
        sign, whole, fraction = match.groups()
        digits = re.sub(r"\D", "", whole)
        if len(digits + (fraction or "")) > _MAX_DIGITS:  # beyond what a float holds, and what anyone would read
            return f" {' '.join(num2words(int(digit), lang=code) for digit in digits + (fraction or ''))} "
        value = float(f"{digits}.{fraction}") if fraction else int(digits)
        return f" {num2words(-value if sign else value, lang=code)} "

    # A colon, slash or hyphen after a digit (times, dates, ranges) separates numbers: no pause, no minus.
    text = re.sub(r"(?<=\d)[:/-](?=\w)", " ", text)
    try:
        return number.sub(speak, text)
    except (NotImplementedError, TypeError, ValueError, LookupError, ArithmeticError):
        return text  # a gap of this language in num2words; espeak-ng reads the digits
