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


def time_text(value: timedelta, digits: int) -> str:
    """Return ``[-]HH:MM:SS[.ffffff]`` with a fixed number of digits.

    >>> time_text(timedelta(hours=-30, minutes=-5), 0)
    '-30:05:00'
    """
    seconds, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    sign, (minutes, rest) = "-" if value < timedelta(0) else "", divmod(seconds, 60)
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}{_fraction(micros, digits)}"


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


def as_time(value: str | time | timedelta) -> timedelta:
    """Return what an attribute of type time holds: a time of day, or a duration of either sign.

    Raises
    ------
    ValueError
        For a text that is neither, and for a time with a time zone.
    """
    if isinstance(value, timedelta):
        return value
    duration = _DURATION(value) if isinstance(value, str) else None
    if duration is not None:
        sign, hours, minutes, seconds, fraction = duration.groups()
        micros = int((fraction or "0").ljust(6, "0"))
        found = timedelta(0, int(seconds), micros, 0, int(minutes), int(hours))
        return -found if sign else found
    clock = time.fromisoformat(value) if isinstance(value, str) else value
    if clock.tzinfo is not None:
        raise ValueError("the database keeps no time zone")
    return datetime.combine(date.min, clock) - datetime.min


def is_odd(value: Any, family: Family) -> bool:
    """Whether a value is one of those that MySQL holds and Python's types do not: a zero date."""
    is_date = family in (Family.DATE, Family.DATETIME)
    return is_date and isinstance(value, str) and _HAS_ZERO(value) is not None


def sortable(value: Any) -> Any:
    """Return what stands for a value of a key in sorting, also beside an odd one.

    >>> sorted([date(2026, 1, 2), "0000-00-00"], key=sortable)[0]
    '0000-00-00'
    """
    return str(value) if isinstance(value, date) else value


def _fraction(microsecond: int, digits: int) -> str:
    return f".{microsecond:06d}"[: digits + 1] if digits else ""
