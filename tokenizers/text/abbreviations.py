"""English abbreviations that end in a period, and what they stand for."""

from __future__ import annotations

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
