"""English abbreviations, initials, Roman numerals and words in capitals, and where they end a sentence."""

from __future__ import annotations

import re

from valle.tokenizers.text.english_numbers import cardinal, ordinal, roman_value, year

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
    "corp": "Corporation", "pkwy": "Parkway", "rte": "Route", "bros": "Brothers", "jr": "Junior", "sr": "Senior",
    "esq": "Esquire", "ave": "Avenue", "blvd": "Boulevard", "rd": "Road", "hwy": "Highway",
    "assn": "Association",
    "govt": "government",
    "univ": "University", "intl": "International", "natl": "National", "al": "al", "misc": "miscellaneous",
}  # fmt: skip
"""Anywhere; they may also end a sentence."""

BEFORE_NUMBERS = {
    "no": "number", "nos": "numbers", "vol": "volume", "vols": "volumes", "p": "page", "pp": "pages", "ch": "chapter",
    "chap": "chapter", "fig": "figure", "figs": "figures", "sec": "section", "art": "article", "pt": "part",
    "ed": "edition", "ext": "extension", "apt": "apartment", "rm": "room", "c": "circa", "ca": "circa",
    "est": "established", "op": "opus", "v": "verse", "eq": "equation", "par": "paragraph", "tel": "telephone",
    "max": "maximum", "min": "minimum", "rte": "route", "rt": "route", "hwy": "highway",
}  # fmt: skip
"""Only before a number; elsewhere they are words or letters."""

LATIN = {"e.g": "for example", "i.e": "that is", "a.k.a": "also known as", "n.b": "note"}

WEEKDAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip

MONTHS = frozenset(["Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec"])
DAYS_AND_MONTHS = frozenset([
    *MONTHS, *WEEKDAYS, *WEEKDAYS.values(), "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December",
])  # fmt: skip

SENTENCE_STARTERS = frozenset([
    "The", "A", "An", "He", "She", "It", "They", "We", "You", "I", "In", "On", "At", "By", "From", "But", "And",
    "So", "Or", "Yet", "This", "That", "These", "Those", "There", "Here", "His", "Her", "Its", "Their", "Our", "My",
    "Your", "When", "While", "After", "Before", "Since", "If", "As", "For", "With", "What", "Why", "How", "Who",
    "Where", "Which", "No", "Not", "Yes", "Then", "Now", "Once", "All", "Some", "Most", "Many", "One", "Two", "Mr",
    "Mrs", "Ms", "Dr", "Mister", "Missus", "Doctor", "Everyone", "Everybody", "Everything", "Nobody", "Nothing",
    "Someone", "Somebody", "Something", "Anyone", "Anybody", "Anything", "Each", "Every", "Both", "Another", "Few",
    "Several", "Such", "Only", "Even", "Just", "Also", "However", "Although", "Though", "Because", "Until", "Unless",
    "Despite", "During", "Today", "Tomorrow", "Yesterday", "Later", "Soon", "Meanwhile", "Instead", "Perhaps", "Maybe",
    "Still", "Thus", "Therefore", "Finally", "Please", "Let", "Do", "Does", "Did", "Is", "Are", "Was", "Were",
])  # fmt: skip
"""Words that, capitalised after an abbreviation, show that it ended a sentence."""

STREETS = {"St": "Street", "Dr": "Drive", "Ave": "Avenue", "Rd": "Road", "Ln": "Lane", "Sq": "Square"}
"""After a name."""

_FUNCTION_WORDS = frozenset([
    "The", "In", "At", "On", "Of", "To", "And", "But", "Near", "From", "By", "For", "With", "Off", "Old",
    "Opposite", "Behind", "Outside", "Around", "Past", "Visit", "Hello", "Hi", "Dear",
])  # fmt: skip
_NAMED_BY_A_LETTER = frozenset([
    "plan", "vitamin", "vitamins", "page", "option", "group", "grade", "terminal", "type", "hepatitis", "influenza",
    "section", "part", "class", "team", "block", "room", "gate", "exhibit", "appendix", "level", "column", "row",
    "line", "answer", "point", "step", "phase", "figure", "table", "category", "zone", "building", "unit", "form",
    "question", "letter", "version", "model", "size", "schedule", "platform", "track", "side", "hall", "wing", "floor",
    "seat", "ward", "drug", "product", "choice", "case", "city", "flat", "lot", "note", "string", "key", "variant",
])  # fmt: skip
_TIME_ZONE = r"(?:[ECMP][SD]?T|GMT|UTC|Eastern|Central|Mountain|Pacific|Greenwich)\b"
_TIME_FIRST = re.compile(r"(?:^|[.!?]\s)(?:At|By|Around|About|Before|After|Until|From|On|In)\s(?:\S+\s){0,4}\S*$")
_PLURAL_SUBJECT = re.compile(r"[A-Z][a-z]+s (?:are|were|have)\b")


def starts_sentence(following: str, after: str = "", before: str = "") -> bool:
    """Whether `following` is a new sentence: what comes after the abbreviation `after`, before which is `before`."""
    word = re.match(r"[A-Za-z]*", following)[0]  # type: ignore[index]  # it always matches
    if after.lower().replace(".", "") in ("am", "pm"):
        return (
            word[:1].isupper()
            and not _TIME_FIRST.search(before)
            and word not in DAYS_AND_MONTHS
            and not re.match(_TIME_ZONE, following)
        )
    return word in SENTENCE_STARTERS or _PLURAL_SUBJECT.match(following) is not None


def is_label(text: str, start: int, following: str) -> bool:
    """Whether the letter at `start` of `text`, with a period, is a name ("Plan B.") or a grade, and no initial."""
    before = re.search(r"(\w*)\s$", text[max(0, start - 20) : start])
    word = before[1].lower() if before else ""
    if word in _NAMED_BY_A_LETTER or (word in ("a", "an") and text[start] in "ABCDEF"):
        return True
    return starts_sentence(following) and not re.match(r"[AI]\b", following)


def is_street(text: str, start: int) -> bool:
    """Whether "St" or the like at `start` of `text` comes after the name of a street."""
    before = re.search(r"\b([A-Z\d][\w']*)\s$", text[max(0, start - 30) : start])
    return before is not None and before[1] not in _FUNCTION_WORDS and before[1] not in SENTENCE_STARTERS


def _names(table: dict[str, str]) -> str:
    return "|".join(sorted(map(re.escape, table), key=len, reverse=True))


_TITLE = re.compile(
    rf"(?<!\d)(?<!\d\s)\b((?i:{_names(TITLES)}))\.\s?(?=[A-Z])|\b((?i:Mr|Mrs|Ms|Dr|Prof))\.\s?(?=[a-z])|\b(Mr|Mrs|Ms|Dr|MR|MRS|MS|DR)\s(?=[A-Z])"
    r"|\b(?!Gen Alpha|Rev Up)(Mt|Ft|Sgt|Capt|Lt|Prof|Col|Rev|Cpl|Pvt|Cmdr|Gov|Gen)\s(?=[A-Z][a-z])"
)
_WORD = re.compile(
    rf"\b((?i:{_names(WORDS)}))\.(?!\w)|\b((?i:blvd|hwy|pkwy|rte|dept|assn|govt|natl|intl)|(?<=\w\s)(?:[JS]r|Bros|Inc|Ltd))"
    r"\b(?![.'-]?\w)"
)
_INSIDE_WORD = re.compile(rf"\b({_names(INSIDE_WORDS)})\.(?!\w)|\b(vs)\b", re.IGNORECASE)
_BEFORE_NUMBER = re.compile(rf"\b((?i:{_names(BEFORE_NUMBERS)}))\.\s?(?=\d|[IVX]{{2,}}\b)")
_LATIN = re.compile(rf"\b({_names(LATIN)})\.?(?![\w.])", re.IGNORECASE)
_WEEKDAY = re.compile(rf"\b({_names(WEEKDAYS)})\.(?=,|\s+(?:\d|[A-Z][a-z]{{2,8}}\.?\s\d))")
_STREET = re.compile(
    rf"(\b\d+\s)?\b([A-Z\d][\w']*)\s({_names(STREETS)})(?:\.(?!\s?[a-z]*[A-Z][a-z]+'s)|\b(?!['-]|\s(?:ft|m|Maria)\b))"
)
_AT_MOST = re.compile(r"(?<!\d)(?<!\d\s)\b([Mm]ax|[Mm]in)\.\s(?=[a-z])")
_SAINT = re.compile(r"\bSt\.?\s(?=[A-Z])")
_DOTTED = re.compile(r"\b((?:[A-Za-z]\.\s?){1,5}[A-Za-z])\.(?!\w)|\b([A-Z](?:\.[A-Z])+)\b(?!\.)")
_DEGREE = re.compile(r"\b(Ph|D|M|B|Ed|Litt|Sc)\.\s?(D|Phil|Sc|Ed|A|S|Litt)\.(?!\w)")
_INITIAL = re.compile(r"(?<![\w'-])([A-HJ-Z])\.(?=\s?[A-Z][\w'])")


def speak_abbreviations(text: str) -> str:
    """Abbreviations: "Dr. Smith of Main St." -> Doctor Smith of Main Street; "e.g.", "No. 5", "U.S.", "J. R. Lee"."""
    text = _LATIN.sub(lambda m: LATIN[m[1].lower()], text)
    text = _DEGREE.sub(lambda m: "-".join((m[1] + m[2]).upper()) + _period_after(m), text)
    text = _BEFORE_NUMBER.sub(lambda m: _like(m[1], BEFORE_NUMBERS[m[1].lower()]) + " ", text)
    text = _AT_MOST.sub(lambda m: _like(m[1], BEFORE_NUMBERS[m[1].lower()]) + " ", text)
    text = _WEEKDAY.sub(lambda m: WEEKDAYS[m[1]], text)
    text = _STREET.sub(_street, text)
    text = _SAINT.sub("Saint ", text)
    text = _TITLE.sub(lambda m: TITLES[(m[1] or m[2] or m[3] or m[4]).capitalize()] + " ", text)
    text = _INSIDE_WORD.sub(lambda m: _like(m[0], INSIDE_WORDS[(m[1] or m[2]).lower()]), text)
    text = _WORD.sub(lambda m: _like(m[1] or m[2], WORDS[(m[1] or m[2]).lower()]) + _period_after(m) * bool(m[1]), text)
    text = _DOTTED.sub(_dotted, text)
    return _INITIAL.sub(lambda m: m[1] + "." * is_label(text, m.start(), text[m.end() :].lstrip()) + " ", text)


def _period_after(match: re.Match[str]) -> str:
    """The period of an abbreviation is also the sentence's where a sentence ends."""
    following = re.match(r"[\"')\]]*(\s*)[\"'(]*", match.string[match.end() :])
    rest = match.string[match.end() + following.end() :] if following else ""
    return (
        "."
        if not rest
        or (following and following[1] and starts_sentence(rest, match[0][:-1], match.string[: match.start()]))
        else ""
    )


def _like(written: str, words: str) -> str:
    return words[0].upper() + words[1:] if written[0].isupper() else words


def _street(match: re.Match[str]) -> str:
    house, before, abbreviation = match.groups()
    period = _period_after(match)
    followed_by_name = re.match(r"\s+[A-Z]", match.string[match.end() :]) and not period
    # "Main St. Apartment 4" or "Main St" and "of St Paul", "Elm Dr" and "Ask Dr. Lee"
    names_follow = abbreviation == "Dr" or (abbreviation == "St" and match[0][-1] != "." and not house)
    if not is_street(match.string, match.start(3)) or (followed_by_name and names_follow):
        return match[0]
    return f"{house or ''}{before} {STREETS[abbreviation]}{period * (match[0][-1] == '.')}"


def _dotted(match: re.Match[str]) -> str:
    """Letters joined by hyphens are what espeak-ng spells right: its "A M" is an article and a letter."""
    letters = re.findall("[A-Za-z]", match[1] or match[2])
    if match[1] and " " in match[1] and any(map(str.islower, letters)):
        return match[0]
    return "-".join(letters).upper() + (_period_after(match) if match[1] else "")


_PARTS = (
    "Chapter|Part|Book|Volume|Act|Scene|Section|Article|Appendix|Figure|Table|Phase|Type|Class|World War|Super Bowl|"
    "Title|Canto|Level|Stage|Psalm|Lesson|Plate|Verse|Chapters|Parts|Books|Round|Grade|Schedule|Amendment"
)
_RULERS = (
    "Henry|Louis|Charles|George|James|Edward|William|Richard|Elizabeth|Mary|Napoleon|Pius|John|Paul|Benedict|Gregory|"
    "Innocent|Leo|Clement|Urban|Alexander|Nicholas|Catherine|Peter|Frederick|Philip|Ferdinand|Francis|Joseph|Victor|"
    "Emmanuel|Otto|Ptolemy|Ramses|Rameses|Xerxes|Darius|Artaxerxes|Thutmose|Amenhotep|Alfonso|Boniface|Sixtus|Julius|"
    "Constantine|Christian|Gustav|Gustavus|Margaret|Ivan|Leopold|Maximilian|Rudolf|Sigismund|Wilhelm"
)
_NUMERAL = r"([IVXLCDM]+)\b(?!['.][A-Za-z])"
_PART_NUMERAL = re.compile(rf"\b({_PARTS}|{_PARTS.upper()})\s{_NUMERAL}(?:-{_NUMERAL})?")
_RULER_NUMERAL = re.compile(
    rf"\b({_RULERS}|{_RULERS.upper()})\s(?:([IVXL]{{2,}}\b|[VX]\b(?!\s+[A-Z][a-z]))|(I)(?=\sof\b|\sOF\b))(?!['.][A-Za-z]{{2}})"
)
_CENTURY_NUMERAL = re.compile(
    r"\b([IVXLC]+)(?:th|st|nd|rd)?(?=\s(?:century|centuries|dynasty)\b)|\b([IVX]+)(?:th|st|nd|rd)\b"
)
_NAME_NUMERAL = re.compile(r"\b([A-Z][a-z]+)\s([IVX]{2,})\b")
_YEAR_NUMERAL = re.compile(r"\bM(?:CM|M|D|CD|DC)[IVXLCDM]+\b")
_INTRAVENOUS = re.compile(r"\bIV(?=\s[a-z]|s?[.,]|$)")


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
    text = _YEAR_NUMERAL.sub(lambda m: year(str(roman_value(m[0]))) if roman_value(m[0]) else m[0], text)
    text = _NAME_NUMERAL.sub(
        lambda m: m[0] if m[1] in SENTENCE_STARTERS | _FUNCTION_WORDS else f"{m[1]} {count(m[2])}", text
    )
    return _INTRAVENOUS.sub("I-V", text)


# Letters, which espeak-ng would read as a word in lower case.
_KEEPS_CAPITALS = re.compile(r"[A-Z](?:-[A-Z])+|CIA|USA|UK|EU|UAE|UN|AI|IRA|NBA|CEO|CFO|UCLA|USSR|IQ")
_CAPITAL_WORD = r"[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ']*(?:-[A-ZÀ-ÖØ-Þ']+)*"
_CAPITAL_RUN = re.compile(rf"(?<![\w'-]){_CAPITAL_WORD}(?:[\s,;:]+{_CAPITAL_WORD}){{2,}}(?![\w'-])")
_COMMON = frozenset([
    "THE", "AND", "OF", "TO", "IN", "IS", "IT", "NOT", "YOU", "FOR", "WAS", "ARE", "WITH", "THIS", "THAT", "BE",
    "HAVE", "WILL", "DO", "DON'T", "NO", "ALL", "MY",
])  # fmt: skip


# espeak-ng spells capitals up to three letters long; these are words, said with emphasis, and acronyms said as words.
_EMPHASISED = frozenset([
    "ADD", "AGE", "AGO", "AID", "AIM", "AIR", "ALE", "ALL", "AN", "AND", "ANY", "ARE", "ARM", "ART", "AS", "ASH",
    "ASK", "AT", "ATE", "AWE", "AXE", "BAD", "BAG", "BAN", "BAR", "BAT", "BAY", "BE", "BED", "BEE", "BEG", "BET",
    "BID", "BIG", "BIN", "BIT", "BOO", "BOW", "BOX", "BOY", "BUD", "BUG", "BUN", "BUS", "BUT", "BUY", "BY", "BYE",
    "CAB", "CAN", "CAP", "CAR", "CAT", "COW", "CRY", "CUP", "CUT", "DAD", "DAM", "DAY", "DEN", "DID", "DIE", "DIG",
    "DIM", "DIP", "DO", "DOG", "DOT", "DRY", "DUB", "DUE", "DUG", "EAR", "EAT", "EGG", "EGO", "ELF", "ELK", "END",
    "ERA", "EVE", "EYE", "FAN", "FAR", "FAT", "FED", "FEE", "FEW", "FIG", "FIT", "FIX", "FLU", "FLY", "FOG", "FOR",
    "FOX", "FRY", "FUN", "FUR", "GAP", "GAS", "GET", "GO", "GOD", "GOT", "GUM", "GUN", "GUT", "GUY", "GYM", "HAD",
    "HAM", "HAS", "HAT", "HAY", "HE", "HEN", "HER", "HEY", "HI", "HID", "HIM", "HIP", "HIS", "HIT", "HOT", "HOW",
    "HUG", "HUM", "HUT", "I'D", "I'M", "ICE", "IF", "ILL", "IN", "INK", "INN", "IS", "ITS", "JAM", "JAR", "JAW",
    "JET", "JOB", "JOY", "KEY", "KID", "KIT", "LAD", "LAP", "LAW", "LAY", "LEG", "LET", "LID", "LIE", "LIP", "LIT",
    "LOT", "LOW", "MAD", "MAN", "MAP", "MAY", "ME", "MEN", "MET", "MIX", "MOB", "MOM", "MUD", "MUG", "MY", "NET",
    "NEW", "NO", "NOD", "NOR", "NOT", "NOW", "NUT", "OAK", "OAR", "ODD", "OF", "OFF", "OH", "OIL", "OLD", "ON",
    "ONE", "OR", "OUR", "OUT", "OWE", "OWL", "OWN", "PAN", "PAT", "PAW", "PAY", "PEA", "PEN", "PET", "PEW", "PIE",
    "PIG", "PIN", "PIT", "POP", "POT", "PUT", "RAM", "RAT", "RAW", "RED", "RID", "RIM", "RIP", "ROB", "ROD", "ROM",
    "ROW", "RUB", "RUG", "RUM", "RUN", "SAD", "SAW", "SAY", "SEA", "SEE", "SET", "SEW", "SHE", "SHY", "SIM", "SIN",
    "SIP", "SIR", "SIT", "SIX", "SKI", "SKY", "SO", "SOB", "SON", "SOY", "SPY", "SUB", "SUE", "SUM", "SUN", "TAG",
    "TAN", "TAP", "TAX", "TEA", "TEN", "THE", "TIE", "TIN", "TIP", "TO", "TOE", "TON", "TOO", "TOP", "TOY", "TRY",
    "TUB", "TUG", "TWO", "UP", "USE", "VAN", "VIA", "VET", "VOW", "WAG", "WAR", "WAS", "WAX", "WAY", "WE", "WEB",
    "WED", "WET", "WHO", "WHY", "WIG", "WIN", "WIT", "WON", "YES", "YET", "YOU", "ZIP", "ZOO", "DIV", "LIV",
])  # fmt: skip
_SHORT_CAPITALS = re.compile(r"(?<![\w'.&/-])[A-Z]{2,3}(?:'[DM])?(?![\w&/]|[.'-]\w)")
# "IT", "US" and "AM" are letters, too: these are words only beside what cannot come before or after the letters.
_EMPHASISED_PRONOUN = re.compile(
    r"(?i:\b(?:tell|let|give|help|show|call|all of|both of|some of|most of|one of)\s)US\b"
    r"|(?i:\b(?:do|did|stop|love|hate|mean|get|make|made|said|want|take|like|believe|try)\s)IT\b"
    r"(?!\s(?:support|work|staff|department|team|people|jobs?|stuff|services?|systems?|security)\b)"
    r"|\bI AM\b"
)


def is_in_capitals(text: str) -> bool:
    """True for a text of several words without small letters, as the transcripts of LibriSpeech."""
    words = re.findall(_CAPITAL_WORD, text)
    lengths = [len(word) for word in words if len(word) > 1]  # "B2B, A4, COVID-19" are names, not shouting
    if len(lengths) < 2 or re.search("[a-zà-öø-ÿ]", text):
        return False
    return max(lengths) > 3 and sum(length > 2 for length in lengths) * 2 >= len(lengths)


def lower_capitals(text: str, whole: bool) -> str:
    """Lower the case of words in capitals, which espeak-ng would spell in part ("IT", "OFF").

    `whole`: all of the text, else runs of three and more words with a common word among them, so that "NASA JPL"
    stays, and short words that are no abbreviation.
    """
    if whole:
        return _lower(text)
    text = _CAPITAL_RUN.sub(lambda m: _lower(m[0]) if _COMMON & set(m[0].split()) else m[0], text)
    text = _EMPHASISED_PRONOUN.sub(lambda m: m[0][:-2] + m[0][-2:].lower(), text)
    return _SHORT_CAPITALS.sub(lambda m: _lower(m[0]) if m[0] in _EMPHASISED else m[0], text)


def _lower(text: str) -> str:
    word = r"[^\W\d_]+(?:['-][^\W\d_]+)*"
    text = re.sub(word, lambda m: m[0] if _KEEPS_CAPITALS.fullmatch(m[0]) else m[0].lower(), text)
    return re.sub(r"\bi\b", "I", text)
