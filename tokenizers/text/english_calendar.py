"""English dates, decades and times of day."""

from __future__ import annotations

import re

from valle.tokenizers.text.english_numbers import cardinal, ordinal, plural, year
from valle.tokenizers.text.english_words import WEEKDAYS

MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
_ABBREVIATED = {"Sept": "September", **{month[:3]: month for month in MONTHS}}
_MONTH_NAMES = {**_ABBREVIATED, **{month: month for month in MONTHS}}
# Upper case for transcripts in capitals; "march", "may" and "dec" in lower case are other words.
_MONTH_NAMES |= {name.upper(): month for name, month in _MONTH_NAMES.items()}
_MONTH_NAMES |= {month.lower(): month for month in MONTHS if month not in ("March", "May")}

_MONTH = "(" + "|".join(sorted(_MONTH_NAMES, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|ST|ND|RD|TH)?"
_YEAR = r"(\d{4})\b"
_MONTH_DAY = re.compile(
    rf"\b{_MONTH}\s(?:the\s)?{_DAY}(?:-{_DAY})?(?![\d:%/-])(?!,\d|\.\d)(?:(,?)\s{_YEAR}(?![\d,.]\d))?"
)
_DAY_MONTH = re.compile(rf"\b(the\s|The\s|THE\s)?{_DAY}(?:-{_DAY})?\s(?:of\s|OF\s)?{_MONTH}(?:(,?)\s{_YEAR})?")
_ISO = re.compile(r"\b(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?:T(?=\d)|\b)")
_NUMERIC = re.compile(r"(?<![\d/.-])(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2}(?!\d))(?![\d/-])(?!\.\d)")
_ABBREVIATED_MONTH = re.compile(
    rf"\b({'|'.join(_ABBREVIATED)})\.(?=\s\d|,|\s*$)|\b({'|'.join(_ABBREVIATED)})(?=\s\d{{4}}\b)"
)
_DECADE = re.compile(
    r"(?<![\w.,])'?(\d{3})0'?s\b|(?<![\w.,])(?:'|(?:(?<=[Tt]he\s)|(?<=[Mm]id[\s-])|(?<=\b(?:her|his|our)\s)"
    r"|(?<=\b(?:in|my)\s)|(?<=\b(?:late|your)\s)|(?<=\b(?:their|early)\s)))(\d)0'?s\b"
)
# Years before 1100 look like any other number: known by the word before, and by what they do not count.
_EARLY_YEAR = re.compile(
    r"\b((?i:in|since|of|from|until|till|to|before|after|around|circa|year|during|about)\s|10\d\d-)(10[1-9]\d)\b"
    r"(?![,.:]?\d|['%]|\s?[-–]?\s?(?:people|men|women|children|million|percent|[a-z]{0,12}[^aiu\W]s\b))"
)
_SEASON = re.compile(r"(?<![\d/.,])((?:19|20)\d\d)/(\d\d)(?![/\d])")
_NAMES = {**WEEKDAYS, **{day: day for day in WEEKDAYS.values()}, **_MONTH_NAMES}
_NAME = "|".join(sorted(_NAMES, key=len, reverse=True))
_NAME_RANGE = re.compile(rf"\b({_NAME})\.?\s?[-—]\s?({_NAME})\b(?!-)\.?")
_ERA = re.compile(r"(?<=\d)\s?(AD|BC|BCE|CE)\b|\b(AD)(?=\s\d)")
_TIME = re.compile(
    r"\b([01]?\d|2[0-4])[:.]([0-5]\d)(?::([0-5]\d))?\s?([AaPp])[-.]?[Mm]\b\.?"
    r"|\b([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?\b(?![:.]\d)(\s?o'clock)?"
    r"|\b(1[0-2]|0?[1-9])\s?([AaPp])[-.]?[Mm]\b"
)
_CLOCK = r"(?:1\d|2[0-4]|0?\d)(?::[0-5]\d)?"
_HALF = r"\s?[AaPp][-.]?[Mm]\b\.?"
_TIME_RANGE = re.compile(
    rf"\b({_CLOCK}(?:{_HALF})?)\s?[-—]\s?(?={_CLOCK}{_HALF})|(?<=\d)(:[0-5]\d)\s?-\s?(?={_CLOCK}(?![\d-]))"
)


def speak_dates(text: str, british: bool) -> str:
    """Dates: "March 3, 1999" -> March third, nineteen ninety-nine; "3 March", "1999-03-12", "3/12/99", "the 1990s"."""

    def numeric(match: re.Match[str]) -> str:
        first, separator, second, years = match.groups()
        day_first = british or separator == "." or int(first) > 12
        day, month = (first, second) if day_first and int(second) <= 12 else (second, first)
        if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
            return match[0]
        spoken_year = _year(years) if len(years) == 4 else _two_digit_year(years)
        return _spoken_date(MONTHS[int(month) - 1], day, None, ", " + spoken_year, british)

    def day_month(match: re.Match[str]) -> str:
        _, day, last, month, comma, years = match.groups()
        tail = f"{comma} {_year(years)}" if years else comma or ""
        days = f"{ordinal(_plain(day))} to {ordinal(_plain(last))}" if last else ordinal(_plain(day))
        the = "The" if match[0].startswith("The") else "the"
        return f"{the} {days} of {_MONTH_NAMES[month]}{tail}"

    def month_day(match: re.Match[str]) -> str:
        month, day, last, comma, years = match.groups()
        tail = f"{comma} {_year(years)}" if years else ""
        return _spoken_date(_MONTH_NAMES[month], day, last, tail, british)

    text = _ISO.sub(
        lambda m: _spoken_date(MONTHS[int(m[2]) - 1], m[3], None, f", {_year(m[1])} ", british).rstrip() + " ", text
    )
    text = _NUMERIC.sub(numeric, text)
    text = _DAY_MONTH.sub(day_month, _MONTH_DAY.sub(month_day, text))
    text = _ABBREVIATED_MONTH.sub(lambda m: _ABBREVIATED[m[1] or m[2]], text)
    text = _NAME_RANGE.sub(lambda m: f"{_NAMES[m[1]]} to {_NAMES[m[2]]}", text)
    text = _DECADE.sub(_decade, text)
    text = _SEASON.sub(lambda m: f"{_year(m[1])} {_two_digit_year(m[2])}", text)
    text = _EARLY_YEAR.sub(lambda m: (f"{_year(m[1][:4])} to " if m[1][-1] == "-" else m[1]) + _year(m[2]), text)
    return _ERA.sub(lambda m: f" {'-'.join(m[1])}" if m[1] else "A-D", text)


def _spoken_date(month: str, day: str, last: str | None, tail: str, british: bool) -> str:
    days = ordinal(_plain(day)) + (f" to {ordinal(_plain(last))}" if last else "")
    return f"the {days} of {month}{tail}" if british else f"{month} {days}{tail}"


def _plain(day: str) -> str:
    return str(int(day))


def _year(digits: str) -> str:
    return year(digits) if 1000 < int(digits) <= 2999 else cardinal(str(int(digits)))


def _two_digit_year(digits: str) -> str:
    """The century is left out, as people do: "99" -> ninety-nine, "05" -> oh five."""
    return f"oh {cardinal(digits[1])}" if digits[0] == "0" else cardinal(digits)


def _decade(match: re.Match[str]) -> str:
    digits = (match[1] or match[2]) + "0"
    return plural(_year(digits) if len(digits) == 4 else cardinal(digits))


def speak_times(text: str) -> str:
    """Times of day: "3:45 p.m." -> three forty-five P-M; "10:00" -> ten o'clock; "14:30", "5pm"."""

    def time(match: re.Match[str]) -> str:
        hour, minute, second, half = (
            match[1] or match[5] or match[9],
            match[2] or match[6],
            match[3] or match[7],
            match[4] or match[10],
        )
        spoken = cardinal(_plain(hour))
        if minute and minute != "00":
            spoken += f" oh {cardinal(minute[1])}" if minute[0] == "0" else f" {cardinal(minute)}"
        elif minute and not half:
            spoken += " o'clock" if 1 <= int(hour) <= 12 else " hundred"
        if second and second != "00":
            spoken += f" and {cardinal(_plain(second))} second{'s' * (_plain(second) != '1')}"
        return spoken + (f" {half.upper()}-M" if half else "")

    return _TIME.sub(time, _TIME_RANGE.sub(lambda m: f"{m[1] or m[2]} to ", text))
