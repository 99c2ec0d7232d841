"""Dates and times in MySQL's SQL: parsing from texts and numbers, moving, and writing."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TypeVar, overload

from dj_dagster.errors import QueryError

Temporal = date | datetime | timedelta
D = TypeVar("D", bound=date)

_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
TIMES_END = timedelta(hours=839)
"""The least time that exceeds the range."""

_LONGEST = timedelta(hours=838, minutes=59, seconds=59)
_MOMENT = re.compile(
    r"\s*(\d{4}|\d{2})[^\w\s](\d{1,2})[^\w\s](\d{1,2})"
    r"(?:(?:[T]|\s+)(\d{1,2})[^\w\s](\d{1,2})(?:[^\w\s](\d{1,2})(?:\.(\d*))?)?)?\s*",
    re.ASCII,
)
_COMPACT = re.compile(r"\s*(\d{8}|\d{14}|\d{6}|\d{12})(?:\.(\d*))?\s*", re.ASCII)
_MOMENT_BEGUN = re.compile(r"\s*(?:\d+[^\w\s]\d+[^\w\s]\d|\d{5})", re.ASCII)
_DIGIT = re.compile(r"\s*\d")
_TIME_BEGUN = re.compile(r"\s*[-+]?\d", re.ASCII)
_TIME = re.compile(
    r"\s*(-)?(?:(\d+)\s+)?(\d+)(?::(\d{1,2}))?(?::(\d{1,2}))?(?:\.(\d*))?\s*", re.ASCII
)


@lru_cache(maxsize=10_000)
def moment(value: str, places: int = 6) -> datetime | None:
    """Return the moment that a text gives in one of the usual forms, None if it is not one.

    Raises
    ------
    QueryError
        If it begins as a moment, but servers read it differently.
    """
    match = _MOMENT.fullmatch(value)
    if match:
        *parts, fraction = match.groups(default="0")
        numbers = [int(part) for part in parts]
        short = len(match[1]) == 2
    else:
        compact = _COMPACT.fullmatch(value)
        if compact is None:
            _check_whole(value, _MOMENT_BEGUN)
            return None
        digits_, fraction = compact[1], compact[2] or "0"
        short = len(digits_) in (6, 12)
        first = 2 if short else 4
        numbers = [int(digits_[:first])]
        numbers += [int(digits_[n : n + 2]) for n in range(first, len(digits_), 2)]
        numbers += [0] * (6 - len(numbers))
    if short:
        numbers[0] += 2000 if numbers[0] < 70 else 1900
    try:
        year, month, day, hour, minute, second = numbers
        if not year or not month or not day:
            # Servers turn these into zero dates for some functions, and into null for others.
            _check_whole(value, _DIGIT)
        found = datetime(year, month, day, hour, minute, second)
        return found + timedelta(microseconds=_micros(fraction, places))
    except (ValueError, OverflowError):
        return None


def moment_of_number(value: float | Decimal) -> datetime | None:
    """Return the moment with the digits of a number: 20240229, 20240229130559."""
    number = int(value)
    if number < 0:
        return None
    if number < 10**8:
        shown = f"{number:06d}" if number < 10**6 else f"{number:08d}"
    else:
        shown = f"{number:012d}" if number < 10**12 else f"{number:014d}"
    fraction = Decimal(str(value)) - number
    found = moment(shown)
    return found and found + timedelta(microseconds=int(fraction * 1_000_000))


def is_time(value: str) -> bool:
    """Whether a text is a time without a date."""
    return _TIME.fullmatch(value) is not None


def is_clock(value: str) -> bool:
    """Whether all servers read a text as a time: ``9:30``, not ``930`` or ``2024-01-05 9:30``."""
    match = _TIME.fullmatch(value)
    return match is not None and match[4] is not None


@lru_cache(maxsize=10_000)
def duration(value: str) -> timedelta | None:
    """Return the time that a text gives: ``9:30``, ``-1:00:00``, ``1 10:00``, ``103000``.

    Raises
    ------
    QueryError
        If it is a date, whose digits some servers read as hours, if it begins as a time but servers
        read it differently, or if it is 839 hours or more.
    """
    match = _TIME.fullmatch(value)
    if match is None:
        found = moment(value)
        if found is None:
            _check_whole(value, _TIME_BEGUN)
        if found and ":" not in value:
            raise QueryError(f"SQL on SQLite: a time is wanted, and {value!r} is a date.")
        return found and found - datetime.combine(found.date(), time())
    sign, days, first, minutes, seconds, fraction = match.groups()
    if minutes is None and days is None:
        if len(first) > 7:
            # Some functions read it as a moment, others as a time.
            _check_whole(value, _TIME_BEGUN)
        digits_ = f"{int(first):06d}"
        hours, minutes, seconds = digits_[:-4], digits_[-4:-2], digits_[-2:]
    else:
        hours = first
    if int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return None
    found = timedelta(
        days=int(days or 0), hours=int(hours), minutes=int(minutes or 0),
        seconds=int(seconds or 0), microseconds=_micros(fraction or "0", 6),
    )  # fmt: skip
    if found >= TIMES_END:
        raise QueryError(f"SQL on SQLite: the text {value!r:.60} is a time of 839 hours or more.")
    return -found if sign else found


def _check_whole(value: str, begun: re.Pattern[str]) -> None:
    if begun.match(value):
        raise QueryError(
            f"SQL on SQLite: the text {value!r:.60} begins as a date or time, and goes on in a way "
            f"that servers read differently."
        )


def duration_of_number(value: float | Decimal) -> timedelta | None:
    """Return the time with the digits of a number: 93000; for a moment's digits the time of day."""
    if value >= 10**10:
        found = moment_of_number(value)
        return found and time_of(found)
    return duration(f"{value:f}" if isinstance(value, Decimal) else str(value))


def within(value: timedelta, places: int, name: str) -> timedelta:
    """Return a time limited to the servers' range.

    Parameters
    ----------
    places
        The digits that its seconds may have.
    name
        The name of its source, for an error.

    Raises
    ------
    QueryError
        If it exceeds the range and has digits of a second, since servers differ in the limit then.
    """
    if abs(value) < TIMES_END:
        return value
    if places:
        raise QueryError(f"SQL on SQLite: servers differ in what {name} gives beyond 838 hours.")
    return _LONGEST if value > timedelta() else -_LONGEST


def time_of(value: datetime) -> timedelta:
    """Return the time of day of a moment."""
    return value - datetime(value.year, value.month, value.day)


def _micros(fraction: str, places: int) -> int:
    kept = int((fraction + "000000")[:6])
    half_up = len(fraction) > 6 and fraction[6] >= "5"
    step = 10 ** (6 - places)
    return (kept + half_up + step // 2) // step * step if places < 6 or half_up else kept


@overload
def round_to(value: datetime, places: int) -> datetime: ...
@overload
def round_to(value: timedelta, places: int) -> timedelta: ...
def round_to(value: datetime | timedelta, places: int) -> datetime | timedelta:
    """Return a moment or a time rounded to a number of digits of its seconds."""
    step = 10 ** (6 - places)
    if isinstance(value, timedelta):
        total = abs(value) // _MICROSECOND
        kept = timedelta(microseconds=total // step * step)
        return -kept if value < timedelta(0) else kept
    return value.replace(microsecond=value.microsecond // step * step)


def text(value: Temporal, places: int) -> str:
    """Return a date, moment or time as the database writes it."""
    match value:
        case datetime():
            return value.isoformat(" ", "seconds") + _fraction(value.microsecond, places)
        case timedelta():
            sign, left = ("-", -value) if value < timedelta(0) else ("", value)
            seconds, micros = divmod(left // _MICROSECOND, 1_000_000)
            minutes, second = divmod(seconds, 60)
            hour, minute = divmod(minutes, 60)
            return f"{sign}{hour:02d}:{minute:02d}:{second:02d}{_fraction(micros, places)}"
        case _:
            return value.isoformat()


def _fraction(micros: int, places: int) -> str:
    return f".{micros:06d}"[: places + 1] if places else ""


def _microsecond(value: date) -> int:
    return value.microsecond if isinstance(value, datetime) else 0


def digits(value: Temporal, places: int) -> int | Decimal:
    """Return a date, moment or time as the number with its digits.

    If a second may have a fraction, the number has six digits after the point, or none if the
    fraction is zero, which affects quotients.
    """
    if places:
        micros = value.microseconds if isinstance(value, timedelta) else _microsecond(value)
        places = 6 if micros else 0
    shown = re.sub(r"[^\d.]", "", text(value, places))
    negative = isinstance(value, timedelta) and value < timedelta(0)
    found = Decimal(shown) if places else int(shown)
    return -found if negative else found


def moved(value: D, months: int, rest: timedelta) -> D | None:
    """Return a date or moment moved by months and a time, None if it is out of range."""
    try:
        year, month = divmod(value.year * 12 + value.month - 1 + months, 12)
        if months:
            day = min(value.day, monthrange(year, month + 1)[1])
            value = value.replace(year=year, month=month + 1, day=day)
        return value + rest
    except (ValueError, OverflowError):
        return None


_LENGTHS = {
    "MICROSECOND": _MICROSECOND,
    "SECOND": timedelta(seconds=1),
    "MINUTE": timedelta(minutes=1),
    "HOUR": timedelta(hours=1),
    "DAY": _DAY,
    "WEEK": timedelta(weeks=1),
}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
SIMPLE_UNITS = frozenset({*_LENGTHS, *_MONTHS})
_ORDER = ("DAY", "HOUR", "MINUTE", "SECOND", "MICROSECOND")
_COMPOUND = {
    f"{first}_{last}": _ORDER[start : end + 1]
    for start, first in enumerate(_ORDER)
    for end, last in enumerate(_ORDER)
    if start < end
}
UNITS = SIMPLE_UNITS | {*_COMPOUND, "YEAR_MONTH"}


def is_of_days(unit: str) -> bool:
    """Whether a date moved by this unit remains a date."""
    return unit in ("DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "YEAR_MONTH")


def has_fraction(unit: str) -> bool:
    """Whether a moment moved by this unit has digits after its seconds."""
    return unit.endswith("MICROSECOND")


def interval(amount: int | Decimal, unit: str) -> tuple[int, timedelta]:
    """Return the months and the time of an interval with one number.

    Raises
    ------
    QueryError
        If it exceeds the range of dates, where servers differ.
    """
    try:
        if unit in _MONTHS:
            return int(amount) * _MONTHS[unit], timedelta()
        if isinstance(amount, Decimal):
            return 0, timedelta(microseconds=int(amount * 1_000_000))
        return 0, int(amount) * _LENGTHS[unit]
    except OverflowError as error:
        raise QueryError(
            f"SQL on SQLite: an interval of {amount} {unit} is out of range."
        ) from error


def compound(value: str, unit: str) -> tuple[int, timedelta] | None:
    """Return the months and the time of an interval such as ``'1:30' MINUTE_SECOND``."""
    sign = -1 if value.lstrip().startswith("-") else 1
    parts = re.findall(r"\d+", value)
    if unit == "YEAR_MONTH":
        numbers = [0] * (2 - len(parts)) + [int(part) for part in parts]
        return (sign * (numbers[0] * 12 + numbers[1]), timedelta()) if len(numbers) == 2 else None
    names = _COMPOUND[unit]
    if len(parts) > len(names):
        return None
    if names[-1] == "MICROSECOND" and parts:
        parts[-1] = f"{parts[-1]:<06}"[:6]
    found = [int(part) for part in parts]
    try:
        pairs = zip(names[len(names) - len(found) :], found, strict=True)
        return 0, sign * sum((number * _LENGTHS[name] for name, number in pairs), timedelta())
    except OverflowError:
        return None


def between(unit: str, first: datetime, second: datetime) -> int:
    """Return the number of whole units between two moments."""
    if second < first:
        return -between(unit, second, first)
    if unit in _LENGTHS:
        return (second - first) // _LENGTHS[unit]
    months = (second.year - first.year) * 12 + second.month - first.month
    months -= (second.day, second.time()) < (first.day, first.time())
    return months // _MONTHS[unit]


def from_days(days: int) -> date | None:
    """Return the date of a day's number since year 0, None beyond the dates that servers have.

    Raises
    ------
    QueryError
        If it is in year 0, which only MySQL tells from none.
    """
    if 0 < days < 366:
        raise QueryError(f"SQL on SQLite: the day {days} is before all dates in FROM_DAYS().")
    return date.fromordinal(days - 365) if 366 <= days <= 3652424 else None


def week_mode(mode: int | None) -> int:
    """Return the mode of a week's number.

    Raises
    ------
    QueryError
        If it is null, of which each server makes something else.
    """
    if mode is None:
        raise QueryError("SQL on SQLite: the mode of a week is null. Write one of 0 to 7.")
    return mode


def week(value: date, mode: int) -> tuple[int, int]:
    """Return the year and the number of a date's week, by one of MySQL's eight modes."""
    monday, wide = bool(mode & 1), bool(mode & 2)
    # Otherwise the first week is the first that begins in the year.
    four_days = monday is not bool(mode & 4)
    return _week(value, monday, four_days, wide)


def _week(value: date, monday: bool, four_days: bool, wide: bool) -> tuple[int, int]:
    def start(year: int) -> int:
        """Return the ordinal of the day on which the first week of a year begins."""
        new_year = date(year, 1, 1)
        weekday = new_year.weekday() if monday else new_year.isoweekday() % 7
        first = new_year.toordinal() - weekday
        later = weekday >= 4 if four_days else weekday != 0
        return first + 7 if later else first

    year, day = value.year, value.toordinal()
    if day < start(year):
        if not wide:
            return year, 0
        year -= 1
    elif wide and year < 9999 and day >= start(year + 1):
        year += 1
    return year, (day - start(year)) // 7 + 1


_OFFSET = re.compile(r"([+-])(\d{1,2}):([0-5]\d)")
_FIRST, _LAST = datetime(1970, 1, 2), datetime(2038, 1, 18)


def in_zone(at: datetime, source: str, target: str) -> datetime:
    """Return a moment of one time zone in another; both are offsets such as ``+02:00``.

    Raises
    ------
    QueryError
        For a zone with a name, or a moment of which servers differ.
    """
    if not _FIRST <= at <= _LAST:
        raise QueryError(f"SQL on SQLite: servers differ in how far CONVERT_TZ() goes ({at}).")
    return at - _offset(source) + _offset(target)


def _offset(written: str) -> timedelta:
    match = _OFFSET.fullmatch(written)
    found = timedelta(hours=int(match[2]), minutes=int(match[3])) if match else None
    if match is None or found is None or found > timedelta(hours=13):
        raise QueryError(
            f"SQL on SQLite: CONVERT_TZ() takes offsets such as '+02:00', not {written!r}: zones "
            f"with names depend on the tables of a server."
        )
    return -found if match[1] == "-" else found
