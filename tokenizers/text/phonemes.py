"""Text to phones with espeak-ng: `phonemize`.

The library and its data come with the `espeakng-loader` package, so nothing is installed on the system. It is called
through `phonemizer`'s wrapper, which gives each language its own copy of the library (espeak-ng keeps global state).
"""

from __future__ import annotations

import difflib
import logging
import re
import threading
from functools import cache, lru_cache

from phonemizer.backend.espeak.wrapper import EspeakWrapper

from valle.common.errors import UserError
from valle.tokenizers.text.characters import MARKS

WORD_BOUNDARY = " "

_logger = logging.getLogger(__name__)
_ALIASES = {"en": "en-us", "fr": "fr-fr", "zh": "cmn", "no": "nb", "nn": "nb", "jp": "ja", "pt-pt": "pt"}
_CLAUSE_END = re.compile(rf"\s*([{MARKS}]+)(?:\s+|$)|\s+(—)")
_SWITCH = re.compile(r"\([^()]*\)")
# espeak-ng names each letter of these ("Chinese letter") in languages not written in them.
_SCRIPTS: list[tuple[str, frozenset[str]]] = [
    (r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff", frozenset({"cmn", "yue", "hak"})),
    (r"\u3040-\u30ff\u31f0-\u31ff", frozenset({"ja"})),
    (r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af", frozenset({"ko"})),
    (r"\u0370-\u03ff\u1f00-\u1fff", frozenset({"el", "grc"})),
    (
        r"\u0400-\u052f",
        frozenset(
            {
                "ru",
                "be",
                "bg",
                "mk",
                "sr",
                "uk",
                "kk",
                "ky",
                "tt",
                "ba",
                "cv",
                "ru-lv",
                "ru-cl",
                "uz",
                "tk",
                "bs",
                "hr",
                "mn",
            }
        ),
    ),
    (r"\u0590-\u05ff", frozenset({"he"})),
    (r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff", frozenset({"ar", "fa", "fa-latn", "ur", "sd", "ug", "ku"})),
    (r"\u0900-\u097f", frozenset({"hi", "mr", "ne", "kok"})),
    (r"\u0e00-\u0e7f", frozenset({"th"})),
]
# A letter, not the article; but where a clause starts with it, it may be either. "D-N-A" ends in one.
_LETTER_A = re.compile(r"(?:(?<=\w )|(?<=\b[A-Z]-))A\b(?![-'])")
_CACHE_SIZE = 4096


def phonemize(text: str, language: str = "en-us") -> list[str]:
    """The phones of normalised `text`, with one boundary symbol before, between and after its words.

    Phones carry their stress mark ("ˈoʊ") and length ("ɑː"). A boundary is " ", or where there is punctuation one
    of `, . ? ! ; : … —`, the strongest if there are several. The first symbol is " ", the last a boundary.
    [] when espeak-ng finds nothing to say. Raises `UserError` for an unknown language.
    Safe to call from several threads and processes.
    """
    language = resolve_language(language)
    symbols = [WORD_BOUNDARY]
    for clause, mark in _clauses(text):
        for word in _words(clause, language):
            symbols += [*word, WORD_BOUNDARY]
        if len(symbols) > 1:
            symbols[-1] = min(symbols[-1], mark, key=_strength)
    return symbols if len(symbols) > 1 else []


@cache
def supported_languages() -> dict[str, str]:
    """espeak-ng's language codes and their names."""
    _use_bundled_library()
    return {voice.language: voice.name for voice in EspeakWrapper().available_voices()}


@cache
def resolve_language(language: str) -> str:
    """espeak-ng's code for `language`: "EN_us", "en" -> "en-us", "zh-CN" -> "cmn", "de-AT" -> "de".

    Raises `UserError` listing the codes that are close, or all of them.
    """
    known = {code.lower(): code for code in supported_languages()}
    code = language.strip().lower().replace("_", "-")
    base = code.split("-")[0]
    for candidate in (code, _ALIASES.get(code), base, _ALIASES.get(base)):
        if candidate in known:
            return known[candidate]
    close = [known for known, name in supported_languages().items() if code and name.lower().startswith(code)]
    close = close or difflib.get_close_matches(code, known, n=4, cutoff=0.7)
    if not close and len(base) > 3:
        close = [known for known, name in supported_languages().items() if code in name.lower()]
    hint = f"did you mean {' or '.join(close[:4])}?" if close else f"known languages: {', '.join(sorted(known))}"
    raise UserError(f"unknown language '{language}'; {hint}")


def _strength(mark: str) -> int:
    return MARKS.index(mark) if mark in MARKS else len(MARKS)


def _clauses(text: str) -> list[tuple[str, str]]:
    """`text` cut at its punctuation: (clause, the mark after it); the mark is " " where there is none."""
    clauses, start = [], 0
    for match in _CLAUSE_END.finditer(text):
        marks = match[1] or match[2]
        clauses.append((text[start : match.start()].strip(), min(marks, key=_strength)))
        start = match.end()
    return [*clauses, (text[start:].strip(), WORD_BOUNDARY)]


@lru_cache(_CACHE_SIZE)
def _words(clause: str, language: str) -> tuple[tuple[str, ...], ...]:
    """The phones of each word of a clause as espeak-ng divides it ("of the" is one word to it)."""
    unread = _unread(language)
    if left_out := unread.findall(clause):
        _logger.warning("cannot read '%s' in language '%s': left out", " ".join(left_out), language)
        clause = unread.sub(" ", clause)
    if language.startswith("en"):
        clause = _LETTER_A.sub("eh", clause)
    if not any(character.isalnum() for character in clause):
        return ()
    espeak, lock = _espeak(language)
    with lock:
        spoken = espeak.text_to_phonemes(clause)
    # "(en)" and "(fr)" mark a change of language; "-" an optional vowel, which is no sound of its own.
    spoken = _SWITCH.sub("", spoken).replace("-", "").replace("\n", " ")
    words = (tuple(phone for phone in word.split("_") if phone) for word in spoken.split())
    return tuple(word for word in words if word)


@cache
def _unread(language: str) -> re.Pattern[str]:
    """Words in the scripts that `language` is not written in."""
    return re.compile(f"[{''.join(letters for letters, readers in _SCRIPTS if language not in readers)}]+")


@cache
def _espeak(language: str) -> tuple[EspeakWrapper, threading.Lock]:
    """espeak-ng speaking `language` (a code of `supported_languages`), and the lock for its global state."""
    _use_bundled_library()
    espeak = EspeakWrapper()
    espeak.set_voice(language)
    return espeak, threading.Lock()


def _use_bundled_library() -> None:
    import espeakng_loader

    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
