"""English web addresses, telephone numbers and single symbols."""

from __future__ import annotations

import re
import unicodedata

from valle.tokenizers.text.english_numbers import spell_digits

_TLDS = [
    "com", "org", "net", "edu", "gov", "io", "ai", "app", "dev", "info", "biz", "uk", "us", "de", "fr", "eu", "co",
    "tv", "me", "ca", "au", "jp", "cn", "in", "it", "es", "nl", "ch", "se", "int", "mil",
]  # fmt: skip
_FILES = [
    "py", "js", "ts", "json", "txt", "md", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "jpg", "jpeg", "png", "gif",
    "svg", "mp3", "mp4", "wav", "flac", "ogg", "exe", "zip", "csv", "tsv", "html", "htm", "css", "yaml", "yml", "xml",
    "pdf", "cpp", "java", "sh", "ipynb", "toml", "ini", "dll", "iso", "apk", "php", "sql",
]  # fmt: skip
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"\b(?:https?://|ftp://|www\.)[^\s\"'()<>\[\]{}]+", re.IGNORECASE)
_DOMAIN = re.compile(
    rf"(?<![\w.-])[a-zA-Z0-9][\w-]*(?:\.[\w-]+)*\.(?:{'|'.join(_TLDS + _FILES)})\b(?:/[^\s\"'()<>\[\]{{}}]*)?(?!\.?\w)"
)
_SPOKEN_IN_ADDRESSES = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "?": "question mark", "=": "equals",
    "&": "and", "#": "hash", "%": "percent", "~": "tilde", ":": "colon", "+": "plus",
}  # fmt: skip
_SPELLED = frozenset([
    "www", "uk", "us", "de", "fr", "eu", "io", "tv", "ai", "it", "es", "jp", "cn", "au", "ca", "nl", "ch", "se",
    "html", "pdf", "php", "py", "js", "ts", "md", "jpg", "png", "svg", "mp3", "mp4", "xls", "xlsx", "ppt", "pptx",
    "txt", "csv", "tsv", "htm", "css", "yml", "xml", "cpp", "sh", "dll", "apk", "sql",
])  # fmt: skip

_AND_IN_LETTERS = re.compile(r"(?<![\w&'])([A-Z]{1,3})\s?&\s?([A-Z]{1,3})(?![\w&])")
_DOT_NET = re.compile(r"(?:(?<!\S)|(?<=\b[A-Z]{3}))\.(NET)\b")
_PHONE = re.compile(
    r"(?<![\w.,-])(?:\+\d{1,3}[\s.-]?(?:\(?\d{1,4}\)?[\s.-]?){2,5}\d{2,4}"
    r"|(?:1[\s.-])?\(\d{3}\)\s?\d{3}[\s.-]\d{4}|(?:1[\s.-])?\d{3}([.-])\d{3}\1\d{4}|\d{3}-\d{4}|\d{3}-\d{2}-\d{4})"
    r"(?![\w-])(?!\.\d)"
)

# Cards and telephones in spaced groups; emergency numbers; codes; American states with a ZIP code
_GROUPS = re.compile(
    r"(?<![\w.,-])(?<!\d\s)(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5}|\d{3}\s\d{3}\s\d{4}"
    r"|0\d{1,4}(?:\s\d{2,4}){2,5})(?![\w-]|\s?\d|[.,]\d)"
)
_CALLED = re.compile(
    r"((?i:\b(?:call|called|calling|dial|dialed|dialled|dialing|phone|phoned|ring|rang|text))\s)([1-9]\d\d)\b"
    r"(?=\s?(?:[,;!?]|\.(?!\d)|$|(?:now|for|at|or|if|and|immediately|today|to|when|right|in|on|as)\b))"
    r"|()\b(911|999|112|988|411|311)(?=\s(?:calls?|operators?|emergency|dispatch\w*|lines?)\b)"
)
_CODE = re.compile(
    r"((?i:\b(?:pin|zip|code|passcode|password|postcode)(?:\s(?:code|number))?(?:\sis|:)?)\s)(\d{4,6})\b(?![.,:-]\d)"
)
_ZIP = re.compile(r"(?<=,\s)([A-Z])([A-Z])\s(\d{5})(?:-(\d{4}))?(?![\w-])")

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
_GREEK_LETTER = re.compile(r"(?<![^\W_])[Α-ΡΣ-Ωα-ω](?![^\W_])")
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
    """Addresses: "me@example.com" -> me at example dot com; a URL loses its scheme; "main.py"; "AT&T", ".NET"."""
    text = _AND_IN_LETTERS.sub(lambda m: f"{'-'.join(m[1])} and {'-'.join(m[2])}", text)
    text = _DOT_NET.sub(lambda m: " dot " + m[1].capitalize(), text)
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
    """What is read digit by digit: "(555) 123-4567" -> five five five, one two three, four five six seven.

    Telephone numbers, "call 911", numbers of cards, PINs, ZIP codes.
    """

    def telephone(match: re.Match[str]) -> str:
        groups = re.findall(r"\d+", match[0])
        return ("plus " if match[0][0] == "+" else "") + ", ".join(map(spell_digits, groups))

    text = _ZIP.sub(lambda m: f"{m[1]}-{m[2]} {', '.join(map(spell_digits, filter(None, m.groups()[2:])))}", text)
    text = _CODE.sub(lambda m: m[1] + spell_digits(m[2]), text)
    text = _CALLED.sub(lambda m: (m[1] or "") + spell_digits(m[2] or m[4]), text)
    return _PHONE.sub(telephone, _GROUPS.sub(telephone, text))


def speak_symbols_in_words(text: str) -> str:
    """Symbols whose reading depends on their neighbours; before the numbers are spelled."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def speak_symbols(text: str) -> str:
    """What symbols remain; afterwards only letters, marks of punctuation, apostrophes and hyphens are left."""
    for symbol, words in _LEFT_OVER.items():
        text = text.replace(symbol, words)
    text = _GREEK_LETTER.sub(lambda m: unicodedata.name(m[0]).split()[-1].lower().replace("lamda", "lambda"), text)
    text = re.sub(r"(?<![^\W\d_])-|-(?![^\W\d_])", " ", text)
    text = re.sub(r"(?<![^\W\d_])'(?![^\W\d_])", " ", text)
    return re.sub(r"\.(?=[^\W\d_])", ". ", text)
