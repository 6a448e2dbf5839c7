"""English abbreviations, initials, Roman numerals and running text in capitals."""

from __future__ import annotations

import re

from valle.tokenizers.text.english_numbers import cardinal, ordinal, roman_value

TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Rev": "Reverend",
    "Hon": "Honorable", "Gen": "General", "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant",
    "Maj": "Major", "Cpl": "Corporal", "Pvt": "Private", "Cmdr": "Commander", "Adm": "Admiral", "Gov": "Governor",
    "Sen": "Senator", "Rep": "Representative", "Pres": "President", "Supt": "Superintendent", "Insp": "Inspector",
    "Msgr": "Monsignor", "Messrs": "Messers", "Mme": "Madame", "Mlle": "Mademoiselle", "Mt": "Mount", "Ft": "Fort",
}  # fmt: skip
"""Before a capitalised name."""

INSIDE_WORDS = {"vs": "versus", "cf": "compare", "viz": "namely", "approx": "approximately", "ibid": "ibidem"}
"""Anywhere but at the end of a sentence."""

WORDS = {
    "etc": "et cetera", "dept": "department", "inc": "Incorporated", "ltd": "Limited", "co": "Company",
    "corp": "Corporation", "bros": "Brothers", "jr": "Junior", "sr": "Senior", "esq": "Esquire", "ave": "Avenue",
    "blvd": "Boulevard", "rd": "Road", "hwy": "Highway", "assn": "Association", "govt": "government",
    "univ": "University", "intl": "International", "natl": "National", "al": "al", "misc": "miscellaneous",
}  # fmt: skip
"""Anywhere; they may also end a sentence."""

BEFORE_NUMBERS = {
    "no": "number", "nos": "numbers", "vol": "volume", "vols": "volumes", "p": "page", "pp": "pages", "ch": "chapter",
    "chap": "chapter", "fig": "figure", "figs": "figures", "sec": "section", "art": "article", "pt": "part",
    "ed": "edition", "ext": "extension", "apt": "apartment", "rm": "room", "c": "circa", "ca": "circa",
    "est": "established", "op": "opus", "v": "verse", "eq": "equation", "par": "paragraph", "tel": "telephone",
}  # fmt: skip
"""Only before a number; elsewhere they are words or letters."""

LATIN = {"e.g": "for example", "i.e": "that is", "a.k.a": "also known as", "n.b": "note"}

WEEKDAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip

MONTHS = frozenset(["Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec"])

SENTENCE_STARTERS = frozenset([
    "The", "A", "An", "He", "She", "It", "They", "We", "You", "I", "In", "On", "At", "By", "From", "But", "And",
    "So", "Or", "Yet", "This", "That", "These", "Those", "There", "Here", "His", "Her", "Its", "Their", "Our", "My",
    "Your", "When", "While", "After", "Before", "Since", "If", "As", "For", "With", "What", "Why", "How", "Who",
    "Where", "Which", "No", "Not", "Yes", "Then", "Now", "Once", "All", "Some", "Most", "Many", "One", "Two", "Mr",
    "Mrs", "Ms", "Dr", "Mister", "Missus", "Doctor",
])  # fmt: skip
"""Words that, capitalised after an abbreviation, show that it ended a sentence."""


_ENDS_SENTENCE = re.compile(rf"[\"')\]]*(?:\s*$|\s+[\"'(]*(?:{'|'.join(sorted(SENTENCE_STARTERS))})\b)")


def _names(table: dict[str, str]) -> str:
    return "|".join(sorted(map(re.escape, table), key=len, reverse=True))


_TITLE = re.compile(
    rf"(?<!\d)(?<!\d\s)\b((?i:{_names(TITLES)}))\.\s?(?=[A-Z])|\b((?i:Mr|Mrs|Ms|Dr|Prof))\.\s?(?=[a-z])|\b(Mr|Mrs|Ms|Dr|MR|MRS|MS|DR)\s(?=[A-Z])"
)
_WORD = re.compile(rf"\b({_names(WORDS)})\.(?!\w)", re.IGNORECASE)
_INSIDE_WORD = re.compile(rf"\b({_names(INSIDE_WORDS)})\.(?!\w)|\b(vs)\b", re.IGNORECASE)
_BEFORE_NUMBER = re.compile(rf"\b((?i:{_names(BEFORE_NUMBERS)}))\.\s?(?=\d|[IVX]{{2,}}\b)")
_LATIN = re.compile(rf"\b({_names(LATIN)})\.?(?![\w.])", re.IGNORECASE)
_WEEKDAY = re.compile(rf"\b({_names(WEEKDAYS)})\.(?=,|\s+(?:\d|[A-Z][a-z]{{2,8}}\.?\s\d))")
_STREET = re.compile(r"\b([A-Z\d][\w']*)\s(St|Dr)\.(?!\s?[a-z]*[A-Z][a-z]+'s)")
_SAINT = re.compile(r"\bSt\.?\s(?=[A-Z])")
_DOTTED = re.compile(r"\b((?:[A-Za-z]\.\s?){1,5}[A-Za-z])\.(?!\w)|\b([A-Z](?:\.[A-Z])+)\b(?!\.)")
_DEGREE = re.compile(r"\b(Ph|D|M|B|Ed|Litt|Sc)\.\s?(D|Phil|Sc|Ed|A|S|Litt)\.(?!\w)")
_INITIAL = re.compile(r"(?<![\w'-])([A-HJ-Z])\.(?=\s?[A-Z][\w'])")
_FUNCTION_WORDS = frozenset([
    "The", "In", "At", "On", "Of", "To", "And", "But", "Near", "From", "By", "For", "With", "Off", "Old",
    "Opposite", "Behind", "Outside", "Around", "Past", "Visit",
])  # fmt: skip


def speak_abbreviations(text: str) -> str:
    """Abbreviations: "Dr. Smith of Main St." -> Doctor Smith of Main Street; "e.g.", "No. 5", "U.S.", "J. R. Lee"."""
    text = _LATIN.sub(lambda m: LATIN[m[1].lower()], text)
    text = _DEGREE.sub(lambda m: "-".join((m[1] + m[2]).upper()) + _period_after(m), text)
    text = _BEFORE_NUMBER.sub(lambda m: _like(m[1], BEFORE_NUMBERS[m[1].lower()]) + " ", text)
    text = _WEEKDAY.sub(lambda m: WEEKDAYS[m[1]], text)
    text = _STREET.sub(_street, text)
    text = _SAINT.sub("Saint ", text)
    text = _TITLE.sub(lambda m: TITLES[(m[1] or m[2] or m[3]).capitalize()] + " ", text)
    text = _INSIDE_WORD.sub(lambda m: _like(m[0], INSIDE_WORDS[(m[1] or m[2]).lower()]), text)
    text = _WORD.sub(lambda m: _like(m[1], WORDS[m[1].lower()]) + _period_after(m), text)
    text = _DOTTED.sub(_dotted, text)
    return _INITIAL.sub(lambda m: f"{m[1]}{_period_after(m)} ", text)


def _period_after(match: re.Match[str]) -> str:
    """The period of an abbreviation is also the sentence's where a sentence ends."""
    return "." if _ENDS_SENTENCE.match(match.string, match.end()) else ""


def _like(written: str, words: str) -> str:
    return words[0].upper() + words[1:] if written[0].isupper() else words


def _street(match: re.Match[str]) -> str:
    before, abbreviation = match.groups()
    if before in _FUNCTION_WORDS or before in SENTENCE_STARTERS:
        return match[0]
    followed_by_name = re.match(r"\s+[A-Z]", match.string[match.end() :]) and not _period_after(match)
    if followed_by_name and abbreviation == "Dr":
        return match[0]
    return f"{before} {'Street' if abbreviation == 'St' else 'Drive'}{_period_after(match)}"


def _dotted(match: re.Match[str]) -> str:
    """Letters joined by hyphens are what espeak-ng spells right: its "A M" is an article and a letter."""
    letters = re.findall("[A-Za-z]", match[1] or match[2])
    if match[1] and " " in match[1] and any(map(str.islower, letters)):
        return match[0]
    return "-".join(letters).upper() + (_period_after(match) if match[1] else "")


_PARTS = (
    "Chapter|Part|Book|Volume|Act|Scene|Section|Article|Appendix|Figure|Table|Phase|Type|Class|World War|Super Bowl|"
    "Title|Canto|Level|Stage|Psalm|Lesson|Number|Plate|Note|Letter|Verse|Chapters|Parts|Books|Round|Grade|Schedule|Amendment"
)
_RULERS = (
    "Henry|Louis|Charles|George|James|Edward|William|Richard|Elizabeth|Mary|Napoleon|Pius|John|Paul|Benedict|Gregory|"
    "Innocent|Leo|Clement|Urban|Alexander|Nicholas|Catherine|Peter|Frederick|Philip|Ferdinand|Francis|Joseph|Victor|"
    "Emmanuel|Otto|Ptolemy|Ramses|Rameses|Xerxes|Darius|Artaxerxes|Thutmose|Amenhotep|Alfonso|Boniface|Sixtus|Julius|"
    "Constantine|Christian|Gustav|Gustavus|Margaret|Ivan|Leopold|Maximilian|Rudolf|Sigismund|Wilhelm"
)
_NUMERAL = r"([IVX]+)\b(?!['.][A-Za-z])"
_PART_NUMERAL = re.compile(rf"\b({_PARTS}|{_PARTS.upper()})\s{_NUMERAL}(?:-{_NUMERAL})?")
_RULER_NUMERAL = re.compile(
    rf"\b({_RULERS}|{_RULERS.upper()})\s(?:([IVX]{{2,}}\b|[VX]\b(?!\s+[A-Z][a-z]))|(I)(?=\sof\b|\sOF\b))(?!['.][A-Za-z]{{2}})"
)
_CENTURY_NUMERAL = re.compile(
    r"\b([IVX]+)(?:th|st|nd|rd)?(?=\s(?:century|centuries|dynasty)\b)|\b([IVX]+)(?:th|st|nd|rd)\b"
)
_NAME_NUMERAL = re.compile(r"\b([A-Z][a-z]+)\s([IVX]{2,})\b")


def speak_roman_numerals(text: str, british: bool) -> str:
    """Roman numerals: "Chapter IV" -> Chapter four; "Henry VIII" -> Henry the eighth; "XIX century"; "Rocky II"."""

    def count(numeral: str) -> str:
        value = roman_value(numeral)
        return cardinal(str(value)) if value else numeral

    def rank(numeral: str) -> str:
        value = roman_value(numeral)
        return ordinal(str(value)) if value else numeral

    text = _PART_NUMERAL.sub(lambda m: f"{m[1]} {count(m[2])}" + (f" to {count(m[3])}" if m[3] else ""), text)
    text = _RULER_NUMERAL.sub(lambda m: f"{m[1]} the {rank(m[2] or m[3])}", text)
    text = _CENTURY_NUMERAL.sub(lambda m: rank(m[1] or m[2]), text)
    return _NAME_NUMERAL.sub(lambda m: f"{m[1]} {count(m[2])}", text)


# Letters, which espeak-ng would read as a word in lower case.
_KEEPS_CAPITALS = re.compile(r"[A-Z](?:-[A-Z])+|CIA|USA|UK|EU|UAE|UN|AI|IRA|NBA|CEO|CFO|UCLA|USSR|IQ")
_CAPITAL_WORD = r"[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ']*(?:-[A-ZÀ-ÖØ-Þ']+)*"
_CAPITAL_RUN = re.compile(rf"(?<![\w'-]){_CAPITAL_WORD}(?:[\s,;:]+{_CAPITAL_WORD}){{2,}}(?![\w'-])")
_COMMON = frozenset([
    "THE", "AND", "OF", "TO", "IN", "IS", "IT", "NOT", "YOU", "FOR", "WAS", "ARE", "WITH", "THIS", "THAT", "BE",
    "HAVE", "WILL", "DO", "DON'T", "NO", "ALL", "MY",
])  # fmt: skip


def is_in_capitals(text: str) -> bool:
    """True for a text of several words without small letters, as the transcripts of LibriSpeech."""
    words = re.findall(_CAPITAL_WORD, text)
    lengths = [len(word) for word in words if len(word) > 1]  # "B2B, A4, COVID-19" are names, not shouting
    if len(lengths) < 2 or re.search("[a-zà-öø-ÿ]", text):
        return False
    return max(lengths) > 3 and sum(length > 2 for length in lengths) * 2 >= len(lengths)


def lower_capitals(text: str, whole: bool) -> str:
    """Lower the case of text shouted in capitals, which espeak-ng would spell in part ("IT", "US").

    `whole`: all of the text, else only runs of three and more words with a common word among them, so that
    "NASA JPL" stays.
    """
    if whole:
        return _lower(text)
    return _CAPITAL_RUN.sub(lambda m: _lower(m[0]) if _COMMON & set(m[0].split()) else m[0], text)


def _lower(text: str) -> str:
    word = r"[^\W\d_]+(?:['-][^\W\d_]+)*"
    text = re.sub(word, lambda m: m[0] if _KEEPS_CAPITALS.fullmatch(m[0]) else m[0].lower(), text)
    return re.sub(r"\bi\b", "I", text)
