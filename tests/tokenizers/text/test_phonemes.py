"""espeak-ng's phones, with boundaries put back."""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from valle.common.errors import UserError
from valle.tokenizers.text import normalise, phonemize, resolve_language

HELLO = [" ", "h", "ə", "l", "ˈoʊ", ",", "w", "ˈɜː", "l", "d", "."]


def _spoken(text: str, language: str = "en-us") -> str:
    return "|".join(phonemize(normalise(text, language), language))


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("Hello, world.", "|".join(HELLO)),
        ("The judge chose nine boys", " |ð|ə| |dʒ|ˈʌ|dʒ| |tʃ|ˈoʊ|z| |n|ˈaɪ|n| |b|ˈɔɪ|z| "),
        ("Wait… what?! No — yes", " |w|ˈeɪ|t|…|w|ˌʌ|t|?|n|ˈoʊ|—|j|ˈɛ|s| "),
        ("(Hi): you; me!", " |h|ˈaɪ|:|j|uː|;|m|ˈiː|!"),
        ("...well", " |w|ˈɛ|l| "),
        ("At 3 a.m. in the U.S.", " |æ|t| |θ|ɹ|ˈiː| |ˈeɪ|ˈɛ|m| |ɪ|n|ð|ə| |j|ˈuː|ˈɛ|s|."),
        ("D.N.A. tests", " |d|ˈiː|ˈɛ|n|ˈeɪ| |t|ˈɛ|s|t|s| "),
        ("Mr. A. Lee is in a room", " |m|ˈɪ|s|t|ɚ|ɹ| |ˈeɪ| |l|ˈiː| |ɪ|z| |ɪ|n| |ɐ| |ɹ|ˈuː|m| "),
    ],
)  # fmt: skip
def test_english(text: str, phones: str) -> None:
    assert _spoken(text) == phones


@pytest.mark.parametrize(
    ("language", "text", "phones"),
    [
        ("de", "Schöne Bücher!", " |ʃ|ˈøː|n|ə| |b|ˈyː|ç|ɜ|!"),
        ("de", "Das Computer-System", " |d|a|s| |k|ɔ|m|p|j|ˈuː|t|ɜ|z|ʏ|s|t|ˈeː|m| "),
        ("fr-fr", "J'aime le football.", " |ʒ|ˈɛ|m| |l|ə| |f|ˈʊ|t|b|ɔː|l|."),
        ("es", "¿Qué tal?", " |k|ˈe| |t|ˈa|l|?"),
        ("it", "Ciao bella", " |tʃ|ˈa|o| |b|ˈɛ|l|l|a| "),
        ("cmn", "你好，世界。", " |n|i2|χ|ˈɑu2|,|s.|ˈi.5| |tɕ|ˈiɛ5|."),
        ("ja", "せかい。", " |s|e̞|k|ˈä|i|."),
    ],
)
def test_other_languages_without_switch_flags(language: str, text: str, phones: str) -> None:
    assert _spoken(text, language) == phones


@pytest.mark.parametrize("text", ["", "...", "—", " - "])
def test_nothing_to_say(text: str) -> None:
    assert phonemize(text) == []


@pytest.mark.parametrize(
    ("language", "word"),
    [
        ("ja", "カタカナ"),
        ("ru", "привет"),
        ("ar", "سلام"),
        ("ko", "한국어"),
        ("el", "γειά"),
        ("hi", "नमस्ते"),
        ("cmn", "東京"),
    ],
)
def test_words_in_scripts_of_other_languages_are_left_out_and_named(
    language: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """espeak-ng would say "Chinese letter" or the like for each character."""
    assert phonemize(f"{word} tower") == phonemize("tower")
    assert word in caplog.text
    caplog.clear()
    assert phonemize(word, language)
    assert not caplog.records


@pytest.mark.parametrize(
    ("given", "resolved"),
    [("en", "en-us"), ("EN_us", "en-us"), ("zh-CN", "cmn"), ("de-AT", "de"), ("fr", "fr-fr"), ("pt-BR", "pt-br")],
)
def test_language_codes(given: str, resolved: str) -> None:
    assert resolve_language(given) == resolved


@pytest.mark.parametrize(("given", "hint"), [("german", "de"), ("enus", "en-us"), ("?", "known languages: af, am")])
def test_unknown_language(given: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"unknown language '{'[?]' if given == '?' else given}'.*{hint}"):
        phonemize("hello", given)


def test_is_quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    phonemize("the football of the week-end, le football du week-end", "fr-fr")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_worker_processes(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    phonemize("already started")  # a forked worker inherits a running espeak-ng
    with multiprocessing.get_context(method).Pool(2) as pool:
        words = pool.map(phonemize, ["Hello, world.", "goodbye", "Hello, world."])
    assert words[0] == words[2] == HELLO
    assert words[1] == phonemize("goodbye")


def test_threads_do_not_mix_languages_or_texts() -> None:
    texts = [
        (f"{word} again", language) for word in ("wine", "garage", "chef", "gin") for language in ("en-us", "de")
    ] * 4
    alone = {item: phonemize(*item) for item in texts}
    from valle.tokenizers.text import phonemes

    phonemes._words.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda item: phonemize(*item), texts)) == [alone[item] for item in texts]
