"""English number words: what each kind of number is called, given as a string of digits."""

from __future__ import annotations

import re

NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?+|\.\d++)"
"""A whole or decimal number as a regular expression without groups: 7, 1,234,567, 3.14, .5.

Possessive, so that long rows of digits are not tried in all their parts."""

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_DENOMINATORS = {2: "half", 4: "quarter"}
_MAX_DIGITS = 15


def cardinal(digits: str, british: bool = False) -> str:
    """Whole numbers: "1234" -> one thousand two hundred (and) thirty-four.

    More than 15 digits, or a leading zero, are read one by one.
    """
    if len(digits) > _MAX_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return spell_digits(digits)
    return _num2words(int(digits), "cardinal", british)


def ordinal(digits: str, british: bool = False) -> str:
    """Ordinals: "22" -> twenty-second."""
    if len(digits) > _MAX_DIGITS:
        return spell_digits(digits)
    return _num2words(int(digits), "ordinal", british)


def spell_digits(digits: str) -> str:
    """Digits one by one: "405" -> four zero five."""
    return " ".join(_DIGITS[int(digit)] for digit in digits)


def number(written: str, british: bool = False) -> str:
    """Whole and decimal numbers: "1,234.5" -> one thousand two hundred thirty-four point five."""
    whole, _, fraction = written.replace(",", "").partition(".")
    words = cardinal(whole, british) if whole else ""
    return f"{words} point {spell_digits(fraction)}".strip() if fraction else words


def year(digits: str) -> str:
    """Years: "1905" -> nineteen oh five, "1900" -> nineteen hundred, "2005" -> two thousand five."""
    century, rest = divmod(int(digits), 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(digits)
    if rest == 0:
        return f"{cardinal(str(century))} hundred"
    return f"{cardinal(str(century))} {'oh ' if rest < 10 else ''}{cardinal(str(rest))}"


def is_year(digits: str) -> bool:
    """True where four bare digits are read as a year."""
    return len(digits) == 4 and digits.isdigit() and 1100 <= int(digits) <= 2099


def fraction(numerator: str, denominator: str) -> str:
    """Fractions: "3", "4" -> three quarters; "7", "200" -> seven over two hundred."""
    top, bottom = cardinal(numerator), int(denominator)
    if not 2 <= bottom <= 100 or int(numerator) == 0:
        return f"{top} over {cardinal(denominator)}"
    part = _DENOMINATORS.get(bottom) or ordinal(str(bottom))
    return f"{top} {part}" if int(numerator) == 1 else f"{top} {plural(part)}"


def plural(words: str) -> str:
    """The plural of the last word: sixty -> sixties, half -> halves."""
    for ending, becomes in (("half", "halves"), ("y", "ies"), ("x", "xes")):
        if words.endswith(ending):
            return words[: -len(ending)] + becomes
    return words + "s"


def roman_value(numeral: str) -> int | None:
    """The value of a Roman numeral: "XIV" -> 14; None for what is no well-formed Roman numeral."""
    if not re.fullmatch(r"M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})", numeral) or not numeral:
        return None
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}[letter] for letter in numeral]
    return sum(-value if value < max(values[i:]) else value for i, value in enumerate(values))


def _num2words(value: int, kind: str, british: bool) -> str:
    from num2words import num2words  # imports all its languages: 0.2 s that few texts need

    words = num2words(value, to=kind).replace(",", "")
    return words if british else words.replace(" and ", " ")
