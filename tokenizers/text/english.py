"""The English rules in the order in which they must run."""

from __future__ import annotations

from valle.tokenizers.text.english_calendar import speak_dates, speak_times
from valle.tokenizers.text.english_quantities import speak_measures, speak_money, speak_plain_numbers, speak_ranges
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
    text = lower_capitals(text, whole=in_capitals)
    # From the longest pattern of digits to the bare number.
    text = speak_telephone_numbers(text)
    text = speak_times(text)
    text = speak_money(text, british)
    text = speak_ranges(text)
    text = speak_measures(text, british)
    text = speak_symbols_in_words(text)
    text = speak_plain_numbers(text, british)
    return speak_symbols(text)
