"""Numbers in languages other than English, through num2words."""

from __future__ import annotations

import re

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
