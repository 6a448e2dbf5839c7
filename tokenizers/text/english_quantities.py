"""English money, units, percentages and all other numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from valle.tokenizers.text.english_numbers import (
    NUMBER,
    cardinal,
    fraction,
    is_year,
    number,
    ordinal,
    spell_digits,
    year,
)

_CURRENCIES = {  # symbol or code: one, many, one hundredth, many hundredths
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₺": ("lira", "lira", "kurush", "kurush"),
    "₴": ("hryvnia", "hryvnias", "kopek", "kopeks"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₿": ("bitcoin", "bitcoins", "satoshi", "satoshis"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
}
_CODES = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "CHF": "CHF", "CAD": "CAD", "AUD": "AUD"}
_DOLLARS = {
    "US": "U-S ",
    "A": "Australian ",
    "AU": "Australian ",
    "C": "Canadian ",
    "CA": "Canadian ",
    "HK": "Hong Kong ",
}
_MAGNITUDES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
}

_UNITS = {
    "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "m": "meter", "km": "kilometer", "nm": "nanometer",
    "μm": "micrometer", "in": "inch", "ft": "foot", "yd": "yard", "yds": "yard", "mi": "mile", "mg": "milligram",
    "mcg": "microgram", "μg": "microgram", "g": "gram", "kg": "kilogram", "kgs": "kilogram", "lb": "pound",
    "lbs": "pound", "oz": "ounce", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter", "dl": "deciliter",
    "dL": "deciliter", "l": "liter", "L": "liter", "gal": "gallon", "qt": "quart", "ha": "hectare", "ns": "nanosecond",
    "μs": "microsecond", "ms": "millisecond", "s": "second", "sec": "second", "secs": "second", "min": "minute",
    "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "yr": "year", "yrs": "year", "mph": "mile per hour",
    "kph": "kilometer per hour", "km/h": "kilometer per hour", "rpm": "revolution per minute",
    "fps": "frame per second", "kt": "knot", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz",
    "GHz": "gigahertz", "Ω": "ohm", "kΩ": "kiloohm", "tbsp": "tablespoon", "tsp": "teaspoon", "floz": "fluid ounce",
    "mpg": "mile per gallon", "mmHg": "millimeter of mercury", "V": "volt",
    "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp", "mAh": "milliamp hour", "W": "watt",
    "kW": "kilowatt", "MW": "megawatt",
    "GW": "gigawatt", "kWh": "kilowatt hour", "kJ": "kilojoule", "cal": "calorie", "kcal": "kilocalorie",
    "Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal", "bit": "bit", "kB": "kilobyte",
    "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "kbps": "kilobit per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second", "dB": "decibel", "mol": "mole", "px": "pixel",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "%": "percent", "¢": "cent",
}  # fmt: skip
# These are words or letters too, so they are units only right after the digits ("10in", but "9 in 10").
_ATTACHED_ONLY = frozenset({"in", "s", "W", "V"})
# "a $5 bill", "a 60W bulb": what is measured is one thing, and a noun follows.
_DETERMINER = re.compile(
    r"\b(?:an?|the|his|her|my|your|our|their|its|this|that|another|every|each|one)\s$", re.IGNORECASE
)
_NOUN = re.compile(
    r"-a-|\s(?!(?:and|are|was|were|off|for|that|which|who|you|she|they|from|the|per|each|more|less|left|with|will|would|"
    r"had|has|have|but|when|than|then|tall|long|wide|deep|high|thick|away|ago|above|below|north|south|east|west|down|"
    r"does|did|can|could|not|into|between)\b)[a-z]{3,}"
)

_AMOUNT = rf"({NUMBER})(?:(\s|-)?(hundred|thousand|million|billion|trillion)\b|\s?([kKmMbBtT]|mn|bn|tn)\b)?"
_SYMBOLS = "[" + "".join(symbol for symbol in _CURRENCIES if len(symbol) == 1) + "]"
_CODE_BEFORE = re.compile(rf"\b({'|'.join(_CODES)})\s?({NUMBER})")
_MONEY = re.compile(rf"(-\s?)?(\b(?:US|AU?|CA?|HK))?({_SYMBOLS})\s?(-)?{_AMOUNT}")
_MONEY_AFTER = re.compile(rf"(-)?(?<![\d.,]){_AMOUNT}\s?({_SYMBOLS}|(?:{'|'.join(_CODES)})\b)", re.IGNORECASE)
_MONEY_RANGE = re.compile(rf"({_SYMBOLS})\s?({NUMBER})-(?:\1\s?)?(?={NUMBER})")
_UNIT = "|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))
_MEASURE = re.compile(
    rf"((?<![\w)])-)?(?<![\w.])({NUMBER})(-|\s?)(sq\.?\s|cu\.?\s)?({_UNIT})(\^[23])?(?:/({_UNIT})(\^[23])?)?"
    r"(?![\w°])(\.(?=,|\s[a-z]))?"
)
_FEET_INCHES = re.compile(r"(?<!\d)(\d+)'\s?(\d+)(?:\"|'')")
_FEET = re.compile(r"(?<![\w'.,])(\d{1,4})'(?=\s[a-z]|[.,;]|$)")
_INCHES = re.compile(r"(?<![\w\".,/])(\d{1,3}(?:\.\d{1,2})?|\d{1,2}/\d{1,2})\"(?=\s[a-z]|[.,;]|$)")
_FLUID_OUNCES = re.compile(r"\bfl\.?\s?oz\b")
_MODEL = re.compile(r"\b(?:iPhone|iPad|Galaxy|Nexus|Pixel|Redmi|Xiaomi|OnePlus|Realme|Mi|Moto|Model|Type)\s$")
_MINUTES_SECONDS = re.compile(r"\b(\d+)\s?m\s(\d{1,2})\s?s\b")
_MARKS = re.compile(
    r"\b(?:rat(?:ed?|ings?)|scor(?:ed?|es|ing)|grade[sd]?|marks?|tests?|exams?|quiz|stars?|reviews?)\b", re.IGNORECASE
)
_RANGE = re.compile(rf"(?<![\d.,-])({NUMBER})(\s?[%°][CF]?|[a-zA-Z]+)?-({NUMBER})(?![-\d])")


def speak_money(text: str, british: bool) -> str:
    """Money: "$42.50" -> forty-two dollars and fifty cents; "£3 million", "US$5k", "20€", "$5-10"."""

    def before(match: re.Match[str]) -> str:
        minus, country, symbol, inner_minus, *amount = match.groups()
        if _is_adjective(match):
            amount[1] = "-"
        kind = _DOLLARS[country] if country and symbol == "$" else (country or "") + " " * bool(country)
        return ("minus " if minus or inner_minus else "") + _money(symbol, kind, british, *amount)

    def after(match: re.Match[str]) -> str:
        minus, *amount, symbol = match.groups()
        symbol = _CODES.get(symbol.upper(), symbol)
        return ("minus " if minus else "") + _money(symbol, "", british, *amount) + " "

    text = _MONEY_RANGE.sub(r"\2 to \1", _CODE_BEFORE.sub(r"\2 \1", text))
    return _MONEY_AFTER.sub(after, _MONEY.sub(before, text))


def _is_adjective(match: re.Match[str]) -> bool:
    """Whether what matched stands between an article or the like and a noun."""
    text = match.string
    before, after = text[max(0, match.start() - 10) : match.start()], text[match.end() : match.end() + 20]
    return _DETERMINER.search(before) is not None and _NOUN.match(after) is not None


def _money(
    symbol: str, kind: str, british: bool, amount: str, gap: str | None, magnitude: str | None, letter: str | None
) -> str:
    """`amount`, `gap`, `magnitude` and `letter` are the groups of `_AMOUNT`; a hyphen makes an adjective of it."""
    one, many, cent, cents = _CURRENCIES[symbol]
    magnitude = magnitude or (_MAGNITUDES[letter.lower()] if letter else None)
    whole, _, part = amount.replace(",", "").partition(".")
    if magnitude or len(part) != 2:
        name = one if (amount == "1" and not magnitude) or gap == "-" else many
        return " ".join(filter(None, (number(amount, british), magnitude, kind + name)))
    coins = f"{cardinal(str(int(part)), british)} {cent if int(part) == 1 else cents}"
    if not int(whole or 0):
        return coins if int(part) else f"zero {kind}{many}"
    notes = f"{cardinal(whole, british)} {kind}{one if int(whole) == 1 else many}"
    return f"{notes} and {coins}" if int(part) else notes


def speak_measures(text: str, british: bool) -> str:
    """Measures: "5 km" -> five kilometers; "60 km/h", "3 m^2", "20°C", "5%", "a 5-km run", "5'10''"."""

    def measure(match: re.Match[str]) -> str:
        minus, amount, gap, square, unit, power, per, per_power, period = match.groups()
        if unit == "s" and _MODEL.search(match.string[: match.start()]):
            return f"{number(amount)} {unit}"
        if gap == " " and unit in _ATTACHED_ONLY and not (power or per or period):
            return match[0]
        if gap == "-" and unit in _ATTACHED_ONLY | {"%", "°"}:
            return match[0]
        shape = {"sq": "square ", "cu": "cubic "}.get((square or "")[:2], "") or _power(power)
        one = amount == "1" or gap == "-" or (unit not in ("%", "°") and _is_adjective(match))
        words = (
            ("minus " if minus else "")
            + number(amount, british)
            + ("-" if gap == "-" else " ")
            + shape
            + _unit_name(unit, one)
        )
        return words + (f" per {_power(per_power)}{_unit_name(per, True)}" if per else "")

    text = _FEET_INCHES.sub(
        lambda m: f"{cardinal(m[1])} {_unit_name('ft', m[1] == '1')} {cardinal(m[2])} {_unit_name('in', m[2] == '1')}",
        text,
    )
    # The mark after a number may also close what was opened before it.
    text = _INCHES.sub(lambda m: m[0] if text.count('"', 0, m.start()) % 2 else _in_inches(m[1]), text)
    text = _FEET.sub(lambda m: m[0] if re.search(r"(?<!\w)'", m.string[: m.start()]) else f"{m[1]} ft", text)
    text = re.sub(r"\b(\d{2,3})/(?=\d{2,3}\s?mmHg)", r"\1 over ", text)
    text = _MINUTES_SECONDS.sub(r"\1 min \2 sec", _FLUID_OUNCES.sub("floz", text))
    return _MEASURE.sub(measure, text)


def _in_inches(amount: str) -> str:
    return f"{amount} inch" if "/" in amount else f"{amount}in"


def _power(written: str | None) -> str:
    return {"^2": "square ", "^3": "cubic "}.get(written or "", "")


def _unit_name(unit: str, one: bool) -> str:
    name = _UNITS[unit]
    if one or name.endswith(("hertz", "percent")):
        return name
    first, per, rest = name.partition(" of " if " of " in name else " per ")
    head, _, tail = first.partition(" ")
    if head == "degree":
        first = f"degrees {tail}".strip()
    else:
        first = {"foot": "feet", "inch": "inches"}.get(first, first + "s")
    return first + per + rest


_CONTINENTAL = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:\.\d{3})++),(\d{1,2})(?![.,]?\d)|(?<![\d.,])(\d{1,3}(?:\.\d{3}){2,}+)()(?![.,]?\d)"
    r"|(?:(?<=€)|(?<=€\s))(\d++),(\d{2})(?![.,]?\d)|(?<![\d.,])(\d++),(\d{2})(?=\s?(?:€|EUR\b|euros?\b))"
)
_GROUPED = re.compile(
    r"(?<![\w.,/'-])(?<!\d\s)([1-9]\d{0,2}(?:'\d{3})+|[1-9]\d{0,2}(?:\s\d{3}){2,}|[1-9]\d{1,2}\s\d{3}|[1-9]\s000)"
    r"(?![\w'/-]|\s?\d|\.\d)"
)


def join_groups(text: str) -> str:
    """Numbers as other countries write them, and 1e6: "1 000 000", "1'000'000" -> 1,000,000; "€1.234,56"."""

    def continental(match: re.Match[str]) -> str:
        whole, cents = [group for group in match.groups() if group is not None]
        return whole.replace(".", ",") + (f".{cents}" if cents else "")

    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)", r"\1 × 10^\2", text)
    text = _CONTINENTAL.sub(continental, text)
    return _GROUPED.sub(lambda m: re.sub(r"[\s']", ",", m[0]), text)


def speak_ranges(text: str) -> str:
    """Ranges: "10-20" -> 10 to 20, "10%-20%" -> 10% to 20%; "10-3=7" -> 10 minus 3=7.

    The numbers themselves are left for the later rules.
    """
    text = re.sub(r"(?<=\d)-(?=\d+(?:[-+*/]\d+)*+\s?=)", " minus ", text)
    text = re.sub(r"(?<=\d)/(?=\d+\s?=)", " divided by ", text)
    return _RANGE.sub(r"\1\2 to \3", text)


def speak_plain_numbers(text: str, british: bool) -> str:
    """All numbers that are still written in digits, from the most special form to the plainest."""
    marked = _MARKS.search(text) is not None

    def rating(match: re.Match[str]) -> str:
        mark, best = match.groups()
        alone = best == "10" or mark == best == "5" or "." in mark
        if float(mark) > int(best) or not (alone or marked) or (mark == best and best in ("20", "50")):
            return match[0]
        return f"{number(mark)} out of {cardinal(best)}"

    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"(?<![\d/.,])(\d+(?:\.\d+)?)/(5|[1-9]0+|[24]5)\b(?![/-]|\.\d|\s(?:of|inch|mile|cup|mm))", rating),
        (r"\b24/7\b", lambda m: "twenty-four seven"),
        (r"\b9/11\b", lambda m: "nine eleven"),
        (r"\b(\d+)/(\1)\b(?!/)", lambda m: f"{cardinal(m[1])} {cardinal(m[1])}"),
        (r"(?<![\d/.,])(\d{1,9})\s(\d{1,3})/(\d{1,3})(?![\d/])", _mixed_fraction),
        (r"(?<![\d/.,])(\d{1,4})/(\d{1,4})(?![\d/])", lambda m: fraction(m[1], m[2])),
        (r"(?<![\d,])(\d[\d,]*+)(?:st|nd|rd|th)\b", lambda m: ordinal(m[1].replace(",", ""), british)),
        (r"(?<![\w.])\d+(?:\.\d+){2,}", lambda m: _dotted(m[0], british)),
        (r"(?<=\d)\s?[*×]\s?(?=\d)", lambda m: " times "),
        (r"(?<=\d)\s-\s(?=\d)", lambda m: " minus "),
        (r"(?<=\d)x(?=\d)", lambda m: " by "),
        (r"(?<=\d):(?=\d)", lambda m: " to "),
        (r"(?<![\w)])-\s?(?=\.?\d)", lambda m: " minus "),
        (r"(?<=\w)-(?=\d)|(?<=\d)-(?=\d)", lambda m: " "),
        (NUMBER, lambda m: f" {year(m[0]) if is_year(m[0]) else number(m[0], british)} "),
    ]
    for pattern, speak in rules:
        text = re.sub(pattern, speak, text)
    # "3-year-old" has become "three -year-old".
    return re.sub(r"(?<=\w) -(?=\w)", "-", text)


def _mixed_fraction(match: re.Match[str]) -> str:
    whole, top, bottom = match.groups()
    part = fraction(top, bottom)
    return f"{cardinal(whole)} and {'a ' + part[4:] if top == '1' and bottom in ('2', '4') else part}"


def _dotted(written: str, british: bool) -> str:
    """A version ("1.2.3": point) or a network address ("10.0.0.1": dot)."""
    parts = written.split(".")
    if len(parts) == 3:
        return " point ".join(cardinal(part, british) for part in parts)
    return " dot ".join(map(spell_digits, parts))
