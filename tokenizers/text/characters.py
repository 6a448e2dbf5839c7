"""Markup and Unicode to the few characters that the text rules and espeak-ng know.

What comes out holds letters with their marks, ASCII digits, single spaces, the punctuation `, . ? ! ; : … —`,
apostrophe, hyphen, straight quotes, brackets and the symbols that some rule can say. All else is gone.
"""

from __future__ import annotations

import html
import re
import unicodedata

MARKS = "?!.…;:—,"
"""The punctuation that is spoken as a pause or a melody, strongest first."""

_ENDS_OF_SENTENCES, _ENDS_OF_CLAUSES = ".…!?", ",;—:"
"""The same, as they may stand for each other at the end of a text: those of the own kind first, in this order."""
_END_CHARACTERS = 12
"""All marks, brackets and quotation marks at the end of a text are within so many."""

SYMBOLS = "%&@#+=*/^_|\\~<>°§×÷±≈≠≤≥∞√¢$£€¥₹₽₩₺₴₪₿"

_KEPT_PUNCTUATION = frozenset(MARKS + SYMBOLS + "'\"-()[]{}")

# NFKC would take these apart in a way that changes what is read.
_BEFORE_NFKC = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛`´ʹʼˈ′＇", "'"),
        **dict.fromkeys("“”„‟«»″〝〞〟「」『』《》〈〉＂‹›", '"'),
        **dict.fromkeys("‐‑⁃﹣－−", "-"),
        **dict.fromkeys("—―⸺⸻﹘", "—"),
        **dict.fromkeys("。｡．।॥۔።", ". "),
        **dict.fromkeys("、､،，﹐", ", "),
        **dict.fromkeys("؛；", "; "),
        **dict.fromkeys("？؟", "? "),
        **dict.fromkeys("！", "! "),
        **dict.fromkeys("：", ": "),
        **dict.fromkeys("¿¡™®©℠", None),
        **dict.fromkeys("•‣◦▪●", ", "),
        "№": "No. ",
        "⋯": "…",
    }
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_MIXED_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_EN_DASH = re.compile(r"(\d[a-zA-Z.%°]{0,4})\s?[–‒]\s?(?=[\d$£€¥₹])")
_DASHES = re.compile(r"[–‒]|--+|(?<=\s)-(?=\s)")
_DOTS = re.compile(r"\.\.+(?:\s*…)*|(?:\.\s){2,}\.|…[….]+")
# Zero-width (non-)joiners spell in Arabic and Indic scripts; elsewhere they are invisible rubbish.
_JOINERS = re.compile(r"(?<![\u0590-\u1fff])[\u200c\u200d]|[\u200c\u200d](?![\u0590-\u1fff])")
_STRAY_MARKS = re.compile(r"(?<![^\W\d_])[\u0300-\u036f\u20d0-\u20ff]+")
_ARITHMETIC = re.compile(r"(?<=\d)\s-\s(?=\d)")


# Tags of HTML and SSML that also stand without attributes; "<name>" may be a word of the text.
_PAUSING_TAGS = (
    "p|div|h[1-6]|ul|ol|li|table|tr|hr|blockquote|pre|section|article|header|footer|title|speak|s|voice|dl|dt|dd|body"
)
_COMMA_TAGS = "br|td|th|break"
_SILENT_TAGS = (
    "a|abbr|aside|audio|b|big|center|cite|code|del|em|emphasis|font|head|html|i|img|ins|kbd|label|lang|main|mark|nav|"
    "nobr|phoneme|prosody|q|say-as|samp|small|span|strike|strong|sub|sup|tbody|thead|token|tt|u|var|w"
)
_ATTRIBUTES = r"(?:\s+[\w:-]+\s?=\s?(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))"
_MARKUP: list[tuple[str, str]] = [
    (r"<!--.*?-->|<[!?][a-zA-Z][^<>]*>|<(script|style)\b[^<>]*>[^<]*</\1>", ""),
    (r"<sub\s+alias\s?=\s?\"([^\"<>]*)\"\s*>[^<]*</sub>", r"\1"),  # SSML: how it is read
    (r"<sup>(-?\d+)</sup>", r"^\1"),
    (rf"</?(?i:{_COMMA_TAGS}){_ATTRIBUTES}*\s*/?>", ", "),
    (rf"</?(?i:{_PAUSING_TAGS}){_ATTRIBUTES}*\s*/?>", ". "),
    (
        rf"</?(?i:{_SILENT_TAGS}){_ATTRIBUTES}*\s*/?>|</[a-zA-Z][\w:-]*>|<[a-zA-Z][\w:-]*(?:{_ATTRIBUTES}+\s*/?|\s*/)>",
        "",
    ),
    # Markdown: pictures and links, headings, quotations, fences of code
    (r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))+(?:\s\"[^\"]*\")?\)", r"\1"),
    (r"(?m)^\s{0,3}#{1,6}\s+(\S.*?)\s*#*$", r"\1."),
    (r"(?m)^\s{0,3}(?:>\s?)+(?=\S)|^\s{0,3}```\w*$", ""),
    (r"<3(?!\d)", " love "),
]
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]\w{1,30});")


def without_markup(text: str) -> str:
    """The text that HTML, SSML or Markdown shows: tags become nothing or a pause, entities their characters."""
    for pattern, shown in _MARKUP:
        text = re.sub(pattern, shown, text)
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def clean(text: str) -> str:
    """What `text` shows, in NFKC and in the characters of this module; spaces are single, none at the ends."""
    text = without_markup(text)
    text = _SUPERSCRIPT.sub(lambda run: "^" + run[0].translate(_SUPERSCRIPTS), text)
    text = _nfkc(_MIXED_FRACTION.sub(" ", text).translate(_BEFORE_NFKC)).replace("⁄", "/")
    text = _JOINERS.sub("", text)
    text = "".join(map(_keep, text))
    text = _STRAY_MARKS.sub("", text)
    text = _EN_DASH.sub(r"\1-", text)
    # A hyphen between spaced numbers is a sign that the number rules must see, not a dash.
    text = _ARITHMETIC.sub("\ue000", text)
    text = _DASHES.sub(" — ", text).replace("\ue000", " - ")
    text = _DOTS.sub("… ", text)
    return " ".join(_nfkc(text).split())


def tidy(text: str) -> str:
    """Punctuation in one form: brackets are commas, quotes are silent, a run of marks is its strongest one."""
    text = re.sub(r"[()\[\]{}]", ", ", text.replace('"', " "))
    text = re.sub(
        rf"\s*([{MARKS}](?:[\s{MARKS}]*[{MARKS}])?)", lambda run: _strongest(run[1]) + " " * (len(run[1]) > 1), text
    )
    text = re.sub(r"(?<=[^\W\d]):(?=[^\W\d])", " ", text)  # no pause within "key:value"
    text = re.sub(r"([?!;…])(?=[^\s])|(?<!\d)([,:])(?=[^\s])|([,:])(?=[^\s\d])", r"\1\2\3 ", text)
    text = text.replace("—", " — ")
    return " ".join(text.lstrip(MARKS + " -").split())


def final_mark(text: str) -> str:
    """The mark that `text`, as it is written, ends in; "" where there is none."""
    mark = tidy(clean("a" + without_markup(text)[-_END_CHARACTERS:]))[-1:]
    return mark if mark in MARKS else ""


def nearest_end(mark: str, ends: str) -> str:
    """What of the marks `ends` stands best at the end of a text in place of `mark`: itself, if it may.

    No mark ("") is as good as a period; "" where `ends` is empty.
    """
    mark = mark or "."
    kinds = sorted((_ENDS_OF_SENTENCES, _ENDS_OF_CLAUSES), key=lambda kind: mark not in kind)
    return next((end for end in mark + "".join(kinds) if end in ends), "")


def _nfkc(text: str) -> str:
    """NFKC, but for the ellipsis, which is a mark of its own here."""
    return "…".join(unicodedata.normalize("NFKC", part) for part in text.split("…"))


def _strongest(run: str) -> str:
    return min((mark for mark in run if mark in MARKS), key=MARKS.index)


def _keep(character: str) -> str:
    category = unicodedata.category(character)
    if (category[0] in "LM" and category != "Me") or character in _KEPT_PUNCTUATION or character in "–‒\u200c\u200d":
        return "" if "\ufe00" <= character <= "\ufe0f" else character  # variation selectors
    if category in ("Nd", "No"):
        digit = unicodedata.digit(character, None)
        return " " if digit is None else str(digit)
    if category == "Nl":
        return character
    # Invisible characters inside a word must not split it; all other rubbish stands between words.
    return "" if category == "Cf" else " "
