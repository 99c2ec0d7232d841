"""Dates and times between text and Python, shared by the backends."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta


def datetime_text(value: datetime, digits: int) -> str:
    """Return ``YYYY-MM-DD HH:MM:SS[.ffffff]`` with a fixed number of digits, so that text sorts.

    >>> datetime_text(datetime(2026, 1, 2, 3, 4, 5, 60000), 3)
    '2026-01-02 03:04:05.060'
    """
    return value.isoformat(" ", "seconds") + _fraction(value.microsecond, digits)


def time_text(value: time, digits: int) -> str:
    """Return ``HH:MM:SS[.ffffff]`` with a fixed number of digits."""
    return value.isoformat("seconds") + _fraction(value.microsecond, digits)


def as_datetime(value: str | datetime) -> datetime:
    """Return a datetime from what a driver gave."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def as_date(value: str | date) -> date:
    """Return a date from what a driver gave."""
    return value if isinstance(value, date) else date.fromisoformat(value)


def as_time(value: str | time | timedelta) -> time | timedelta:
    """Return a time of day from what a driver gave; MySQL also has durations of days."""
    if isinstance(value, timedelta):
        within_day = timedelta(0) <= value < timedelta(days=1)
        return (datetime.min + value).time() if within_day else value
    return value if isinstance(value, time) else time.fromisoformat(value)


def _fraction(microsecond: int, digits: int) -> str:
    return f".{microsecond:06d}"[: digits + 1] if digits else ""
