"""Written text to the words that a reader says: `normalise`."""

from __future__ import annotations

from valle.tokenizers.text.characters import clean, tidy
from valle.tokenizers.text.english import speak_english
from valle.tokenizers.text.numbers import speak_numbers

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
