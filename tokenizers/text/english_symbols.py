"""English web addresses, telephone numbers and single symbols."""

from __future__ import annotations

import re

from valle.tokenizers.text.english_numbers import spell_digits

_TLDS = [
    "com", "org", "net", "edu", "gov", "io", "ai", "app", "dev", "info", "biz", "uk", "us", "de", "fr", "eu", "co",
    "tv", "me", "ca", "au", "jp", "cn", "in", "it", "es", "nl", "ch", "se", "int", "mil",
]  # fmt: skip
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"\b(?:https?://|ftp://|www\.)[^\s\"'()<>\[\]{}]+", re.IGNORECASE)
_DOMAIN = re.compile(
    rf"(?<![\w.-])[a-zA-Z0-9][\w-]*(?:\.[\w-]+)*\.(?:{'|'.join(_TLDS)})\b(?:/[^\s\"'()<>\[\]{{}}]*)?(?!\.?\w)"
)
_SPOKEN_IN_ADDRESSES = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "?": "question mark", "=": "equals",
    "&": "and", "#": "hash", "%": "percent", "~": "tilde", ":": "colon", "+": "plus",
}  # fmt: skip
_SPELLED = frozenset([
    "www", "uk", "us", "de", "fr", "eu", "io", "tv", "ai", "it", "es", "jp", "cn", "au", "ca", "nl", "ch", "se",
    "html", "pdf", "php",
])  # fmt: skip

_PHONE = re.compile(
    r"(?<![\w.,-])(?:\+\d{1,3}[\s.-]?(?:\(?\d{1,4}\)?[\s.-]?){2,5}\d{2,4}"
    r"|(?:1[\s.-])?\(\d{3}\)\s?\d{3}[\s.-]\d{4}|(?:1[\s.-])?\d{3}([.-])\d{3}\1\d{4}|\d{3}-\d{4}|\d{3}-\d{2}-\d{4})"
    r"(?![\w-])(?!\.\d)"
)

_WORDS: list[tuple[str, str]] = [
    (r"\[\d{1,3}\]", ""),  # a reference
    (r"\bw/o\b", "without"),
    (r"\bw/\s?(?=\w)", "with "),
    (r"\b(and)/(or)\b", r"\1 \2"),
    (r"\b(s?he)/(s?he|her)\b|\b(his)/(her)\b|\b(him)/(her)\b", r"\1\3\5 or \2\4\6"),
    (r"(?<=\b[A-G])#(?!\w)", " sharp"),
    (r"#\s?(?=\d)", " number "),
    (r"#(?=\w)", " hashtag "),
    (r"(?<!\S)\.(?=[A-Za-z])", " dot "),
    (r"\b([a-zA-Z])\^2(?!\d)", r"\1 squared "),
    (r"\b([a-zA-Z])\^3(?!\d)", r"\1 cubed "),
    (r"(?<=\d)\^2(?!\d)", " squared "),
    (r"(?<=\d)\^3(?!\d)", " cubed "),
    (r"(?<=[^\W\d_]{2})\^(?=\d)\d+|(?<=[.,;!?\"'])\^\d+", ""),  # a footnote's number
    (r"(?<=\w)\^(?=\S)", " to the power of "),
    (r"~\s?(?=\d)", " about "),
    (r"(?<=\w)\s?<=?\s(?=\w)|(?<=\d)<(?=\d)", " less than "),
    (r"(?<=\w)\s?>=?\s(?=\w)|(?<=\d)>(?=\d)", " greater than "),
]
_LEFT_OVER = {
    "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent ", "/": " slash ", "×": " times ",
    "÷": " divided by ", "±": " plus or minus ", "≈": " approximately equals ", "≠": " is not equal to ",
    "≤": " less than or equal to ", "≥": " greater than or equal to ", "∞": " infinity ", "√": " square root of ",
    "°": " degrees ", "§": " section ", "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "¢": " cents ",
    "|": ", ", "*": " ", "_": " ", "\\": " ", "^": " ", "~": " ", "<": " ", ">": " ", "#": " ",
    "₹": " rupees ", "₽": " rubles ", "₩": " won ", "₺": " lira ", "₴": " hryvnias ", "₪": " shekels ",
    "₿": " bitcoins ",
}  # fmt: skip


def speak_addresses(text: str) -> str:
    """Addresses: "me@example.com" -> me at example dot com; a URL loses its scheme."""
    for pattern in (_EMAIL, _URL, _DOMAIN):
        text = pattern.sub(_address, text)
    return text


def _address(match: re.Match[str]) -> str:
    written = match[0].rstrip(".,;:!?")
    tail = match[0][len(written) :]
    written = re.sub(r"^\w+://", "", written).rstrip("/")
    parts = re.findall(r"[^\W_]+|[^\w\s]|_", written)
    spoken = (" ".join(part) if part.lower() in _SPELLED else _SPOKEN_IN_ADDRESSES.get(part, part) for part in parts)
    return " ".join(spoken) + tail


def speak_telephone_numbers(text: str) -> str:
    """Telephone numbers: "(555) 123-4567" -> five five five, one two three, four five six seven."""

    def telephone(match: re.Match[str]) -> str:
        groups = re.findall(r"\d+", match[0])
        return ("plus " if match[0][0] == "+" else "") + ", ".join(map(spell_digits, groups))

    return _PHONE.sub(telephone, text)


def speak_symbols_in_words(text: str) -> str:
    """Symbols whose reading depends on their neighbours; before the numbers are spelled."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def speak_symbols(text: str) -> str:
    """What symbols remain; afterwards only letters, marks of punctuation, apostrophes and hyphens are left."""
    for symbol, words in _LEFT_OVER.items():
        text = text.replace(symbol, words)
    text = re.sub(r"(?<![^\W\d_])-|-(?![^\W\d_])", " ", text)
    text = re.sub(r"(?<![^\W\d_])'(?![^\W\d_])", " ", text)
    return re.sub(r"\.(?=[^\W\d_])", ". ", text)
