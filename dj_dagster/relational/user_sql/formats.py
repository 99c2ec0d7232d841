"""The functions DATE_FORMAT and STR_TO_DATE: formatting and parsing by a pattern."""

from __future__ import annotations

import re
from calendar import day_abbr, day_name, month_abbr, month_name
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

from dj_dagster.relational.user_sql import temporal

_DATE_CODES = frozenset("abcDdejMmUuVvWwXxYy")
_TIME_CODES = frozenset("fHhIiklprSsT")


def _ordinal(day: int) -> str:
    if day // 10 == 1:
        return f"{day}th"
    return f"{day}{({1: 'st', 2: 'nd', 3: 'rd'}).get(day % 10, 'th')}"


_CODES: dict[str, Callable[[datetime], str]] = {
    "a": lambda at: day_abbr[at.weekday()],
    "b": lambda at: month_abbr[at.month],
    "c": lambda at: str(at.month),
    "D": lambda at: _ordinal(at.day),
    "d": lambda at: f"{at.day:02d}",
    "e": lambda at: str(at.day),
    "f": lambda at: f"{at.microsecond:06d}",
    "H": lambda at: f"{at.hour:02d}",
    "h": lambda at: f"{(at.hour + 11) % 12 + 1:02d}",
    "I": lambda at: f"{(at.hour + 11) % 12 + 1:02d}",
    "i": lambda at: f"{at.minute:02d}",
    "j": lambda at: f"{at.timetuple().tm_yday:03d}",
    "k": lambda at: str(at.hour),
    "l": lambda at: str((at.hour + 11) % 12 + 1),
    "M": lambda at: month_name[at.month],
    "m": lambda at: f"{at.month:02d}",
    "p": lambda at: "PM" if at.hour >= 12 else "AM",
    "r": lambda at: formatted(at, "%I:%i:%S %p"),
    "S": lambda at: f"{at.second:02d}",
    "s": lambda at: f"{at.second:02d}",
    "T": lambda at: formatted(at, "%H:%i:%S"),
    "U": lambda at: f"{temporal.week(at, 0)[1]:02d}",
    "u": lambda at: f"{temporal.week(at, 1)[1]:02d}",
    "V": lambda at: f"{temporal.week(at, 2)[1]:02d}",
    "v": lambda at: f"{temporal.week(at, 3)[1]:02d}",
    "W": lambda at: day_name[at.weekday()],
    "w": lambda at: str(at.isoweekday() % 7),
    "X": lambda at: f"{temporal.week(at, 2)[0]:04d}",
    "x": lambda at: f"{temporal.week(at, 3)[0]:04d}",
    "Y": lambda at: f"{at.year:04d}",
    "y": lambda at: f"{at.year % 100:02d}",
}


def formatted(at: datetime, form: str) -> str:
    """Return a moment by a pattern of DATE_FORMAT.

    >>> formatted(datetime(2024, 2, 29, 13, 5), "%c/%d/%y %h:%i %p")
    '2/29/24 01:05 PM'
    """
    return re.sub("%(.)", lambda code: _coded(at, code[1]), form, flags=re.DOTALL)


def _coded(at: datetime, code: str) -> str:
    return _CODES[code](at) if code in _CODES else code


def formatted_time(at: timedelta, form: str) -> str | None:
    """Return a time, which may exceed 24 hours, by a pattern of TIME_FORMAT."""
    hours, rest = divmod(abs(at), timedelta(hours=1))
    within = datetime.combine(date(2000, 1, 1), time()) + timedelta(hours=hours % 24) + rest
    sign = "-" if at < timedelta(0) else ""
    codes = set(re.findall("%(.)", form))
    if codes & _DATE_CODES:
        return None
    form = form.replace("%H", f"{sign}{hours:02d}").replace("%k", f"{sign}{hours}")
    return formatted(within, form)


def parts_of(form: str) -> tuple[bool, bool, bool]:
    """Return whether a pattern has a date, a time, and digits of a second."""
    codes = set(re.findall("%(.)", form))
    return bool(codes & _DATE_CODES), bool(codes & _TIME_CODES), "f" in codes


_NAMES = {
    "M": [name.lower() for name in month_name],
    "b": [name.lower() for name in month_abbr],
    "W": [name.lower() for name in day_name],
    "a": [name.lower() for name in day_abbr],
}
_READ = {
    "Y": r"\d{1,4}", "y": r"\d{1,2}", "m": r"\d{1,2}", "c": r"\d{1,2}", "d": r"\d{1,2}",
    "e": r"\d{1,2}", "D": r"\d{1,2}(?:st|nd|rd|th)", "H": r"\d{1,2}", "k": r"\d{1,2}",
    "h": r"\d{1,2}", "I": r"\d{1,2}", "l": r"\d{1,2}", "i": r"\d{1,2}", "s": r"\d{1,2}",
    "S": r"\d{1,2}", "f": r"\d{1,6}", "p": "am|pm", "j": r"\d{1,3}",
    **{code: "|".join(filter(None, names)) for code, names in _NAMES.items()},
}  # fmt: skip


@lru_cache(maxsize=200)
def _reader(form: str) -> tuple[re.Pattern[str], list[str]] | None:
    """Return the expression for a pattern's texts and its groups' codes, None if unsupported."""
    form = form.replace("%T", "%H:%i:%S").replace("%r", "%I:%i:%S %p")
    codes: list[str] = []
    parts: list[str] = []
    for match in re.finditer(r"%(.)|(\s+)|(.)", form, re.DOTALL):
        code = match[1]
        if code is None:
            parts.append(r"\s*" if match[2] else rf"\s*{re.escape(match[3])}")
        elif code == "%":
            parts.append("%")
        elif code in _READ:
            codes.append(code)
            parts.append(rf"\s*({_READ[code]})")
        else:
            return None
    return re.compile("".join(parts), re.IGNORECASE | re.ASCII), codes


def can_read(form: str) -> bool:
    """Whether texts of a pattern can be read."""
    return _reader(form) is not None


def parsed(value: str, form: str) -> Any:
    """Parse a date, moment or time by a pattern; None if the text does not fit."""
    reader = _reader(form)
    assert reader is not None  # see `can_read`
    match = reader[0].match(value)
    if match is None:
        return None
    fields: dict[str, int] = {}
    for code, found in zip(reader[1], match.groups(), strict=True):
        _take(fields, code, found.lower())
    return _built(fields, *parts_of(form)[:2])


def _take(fields: dict[str, int], code: str, found: str) -> None:
    if code in ("M", "b"):
        fields["month"] = _NAMES[code].index(found)
    elif code == "p":
        fields["pm"] = found == "pm"
    elif code == "f":
        fields["micro"] = int(f"{found:<06}")
    elif code == "D":
        fields["day"] = int(found[:-2])
    elif code == "y" or (code == "Y" and len(found) <= 2):
        fields["year"] = int(found) + (2000 if int(found) < 70 else 1900)
    elif code not in ("W", "a"):
        name = {"Y": "year", "m": "month", "c": "month", "d": "day", "e": "day", "j": "yearday",
                "H": "hour", "k": "hour", "h": "half", "I": "half", "l": "half", "i": "minute",
                "s": "second", "S": "second"}[code]  # fmt: skip
        fields[name] = int(found)


def _built(fields: dict[str, int], has_date: bool, has_time: bool) -> Any:
    hour = fields.get("hour", 0)
    if "half" in fields:
        if not 1 <= fields["half"] <= 12:
            return None
        hour = fields["half"] % 12 + 12 * fields.get("pm", 0)
    try:
        at = time(hour, fields.get("minute", 0), fields.get("second", 0), fields.get("micro", 0))
        if not has_date:
            return datetime.combine(date.min, at) - datetime.min
        if "yearday" in fields:
            day = date(fields["year"], 1, 1) + timedelta(days=fields["yearday"] - 1)
        else:
            day = date(fields["year"], fields["month"], fields["day"])
    except (ValueError, KeyError, OverflowError):
        return None
    return datetime.combine(day, at) if has_time else day
