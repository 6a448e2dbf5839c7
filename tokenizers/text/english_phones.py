"""The phones of American English as espeak-ng writes them: the default vocabulary.

All that `PhonemeTokenizer.train` finds in the 13,000 sentences of the LJ Speech texts. The order gives the token ids,
so models depend on it: phones may be added at the end, never moved.
"""

from __future__ import annotations

ENGLISH_PHONES = (
    "aɪ", "aɪə", "aɪɚ", "aʊ", "b", "d", "dʒ", "eɪ", "f", "h", "i", "iə", "iː", "j", "k", "l", "m", "n", "n̩", "oʊ",
    "p", "r", "s", "t", "tʃ", "uː", "v", "w", "x", "z", "æ", "ð", "ŋ", "ɐ", "ɑː", "ɑːɹ", "ɔ", "ɔɪ", "ɔː", "ɔːɹ",
    "ə", "əl", "ɚ", "ɛ", "ɛɹ", "ɜː", "ɡ", "ɪ", "ɪɹ", "ɹ", "ɾ", "ʃ", "ʊ", "ʊɹ", "ʌ", "ʒ", "ʔ", "ˈaɪ", "ˈaɪə", "ˈaɪɚ",
    "ˈaʊ", "ˈeɪ", "ˈiə", "ˈiː", "ˈoʊ", "ˈuː", "ˈæ", "ˈɑː", "ˈɑːɹ", "ˈɔ", "ˈɔɪ", "ˈɔː", "ˈɔːɹ", "ˈɛ", "ˈɛɹ", "ˈɜː",
    "ˈɪ", "ˈɪɹ", "ˈʊ", "ˈʊɹ", "ˈʌ", "ˌaɪ", "ˌaʊ", "ˌeɪ", "ˌiə", "ˌiː", "ˌoʊ", "ˌuː", "ˌæ", "ˌɐ", "ˌɑː", "ˌɑːɹ",
    "ˌɔ", "ˌɔɪ", "ˌɔː", "ˌɔːɹ", "ˌɛ", "ˌɛɹ", "ˌɜː", "ˌɪ", "ˌɪɹ", "ˌʊ", "ˌʊɹ", "ˌʌ", "θ", "ᵻ",
)  # fmt: skip
