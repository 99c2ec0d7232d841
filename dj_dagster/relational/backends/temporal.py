"""Dates and times between text and Python, shared by the backends."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Any

from dj_dagster.model.types import Family


def datetime_text(value: datetime | str, digits: int) -> str:
    """Return ``YYYY-MM-DD HH:MM:SS[.ffffff]`` with a fixed number of digits, so that text sorts.

    A zero date is a text already.

    >>> datetime_text(datetime(2026, 1, 2, 3, 4, 5, 60000), 3)
    '2026-01-02 03:04:05.060'
    """
    if isinstance(value, str):
        return value
    return value.isoformat(" ", "seconds") + _fraction(value.microsecond, digits)


def time_text(value: time | timedelta, digits: int) -> str:
    """Return ``HH:MM:SS[.ffffff]`` with a fixed number of digits.

    Of durations that are not times of a day too, as MySQL has them: ``-01:00:00``, ``30:00:00``.
    """
    if isinstance(value, timedelta):
        seconds, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
        sign, (minutes, rest) = "-" if value < timedelta(0) else "", divmod(seconds, 60)
        return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}{_fraction(micros, digits)}"
    return value.isoformat("seconds") + _fraction(value.microsecond, digits)


_DURATION = re.compile(r"(-?)(\d{1,3}):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?").fullmatch

_HAS_ZERO = re.compile(r"(?:0000-\d\d-\d\d|\d{4}-00-\d\d|\d{4}-\d\d-00)(?:[ T].*)?").fullmatch


def as_datetime(value: str | datetime) -> datetime:
    """Return a datetime from what a driver gave."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def datetime_or_zero(value: str | datetime) -> datetime | str:
    """Return the same; a zero date, which MySQL can hold, as its text."""
    return value if isinstance(value, str) and _HAS_ZERO(value) else as_datetime(value)


def date_or_zero(value: str | date) -> date | str:
    """Return a date from what a driver gave; a zero date, which MySQL can hold, as its text."""
    if isinstance(value, date):
        return value
    return value if _HAS_ZERO(value) else date.fromisoformat(value)


def as_time(value: str | time | timedelta) -> time | timedelta:
    """Return a time of day from what a driver gave; MySQL also has durations of days."""
    if isinstance(value, str):
        duration = _DURATION(value)
        if duration is None:
            return time.fromisoformat(value)
        sign, hours, minutes, seconds, fraction = duration.groups()
        micros = int((fraction or "0").ljust(6, "0"))
        value = timedelta(0, int(seconds), micros, 0, int(minutes), int(hours))
        value = -value if sign else value
    if isinstance(value, timedelta):
        within_day = timedelta(0) <= value < timedelta(days=1)
        return (datetime.min + value).time() if within_day else value
    return value


def is_odd(value: Any, family: Family) -> bool:
    """Whether a value is one of those that MySQL holds and Python's types do not.

    These are zero dates, and times that are negative or longer than a day.
    """
    match family:
        case Family.DATE | Family.DATETIME:
            return isinstance(value, str) and _HAS_ZERO(value) is not None
        case Family.TIME:
            is_text = isinstance(value, str) and _DURATION(value) is not None
            return (is_text or isinstance(value, timedelta)) and isinstance(
                as_time(value), timedelta
            )
        case _:
            return False


def sortable(value: Any) -> Any:
    """Return what stands for a value of a key in sorting, also beside an odd one.

    >>> sorted([time(6), timedelta(hours=-1), timedelta(hours=30)], key=sortable)[1]
    datetime.time(6, 0)
    """
    if isinstance(value, time):
        return datetime.combine(date.min, value) - datetime.min
    return str(value) if isinstance(value, date) else value


def _fraction(microsecond: int, digits: int) -> str:
    return f".{microsecond:06d}"[: digits + 1] if digits else ""
