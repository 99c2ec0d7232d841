"""Functions of MySQL that restrictions and projections use, for SQLite, which has fewer.

Dates and times are SQLite's texts, ``2024-02-29`` and ``2024-02-29 23:59:58.123``. As in MySQL a
null among the arguments makes the result null, unless said otherwise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache, wraps
from typing import Any, Protocol

from dj_dagster.errors import QueryError
from dj_dagster.relational.algebra.json_path import json_steps

Function = Callable[..., Any]

_UNITS = {
    "MICROSECOND": timedelta(microseconds=1),
    "SECOND": timedelta(seconds=1),
    "MINUTE": timedelta(minutes=1),
    "HOUR": timedelta(hours=1),
    "DAY": timedelta(days=1),
    "WEEK": timedelta(weeks=1),
}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_FORMATS = {"%i": "%M", "%s": "%S", "%M": "%B", "%W": "%A", "%T": "%H:%M:%S", "%e": "%-d"}


class Registry(Protocol):
    """Python's connection to SQLite, as far as it matters here."""

    def create_function(
        self, name: str, narg: int, func: Function, *, deterministic: bool = False
    ) -> None:
        """Make a function known to SQL."""
        ...

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Any) -> None:
        """Make an aggregate known to SQL."""
        ...


def register(connection: Registry) -> None:
    """Make the functions known to a connection."""
    for name, function in _FUNCTIONS.items():
        connection.create_function(name, -1, _null_of_null(function), deterministic=True)
    # Of two arguments, as the one of SQLAlchemy, which heeds case.
    connection.create_function("regexp", 2, _null_of_null(_regexp), deterministic=True)
    connection.create_function("concat_ws", -1, _concat_ws, deterministic=True)
    connection.create_function("if", 3, lambda which, a, b: a if which else b, deterministic=True)
    connection.create_function("dj_json_value", 2, _json_value, deterministic=True)
    connection.create_function("dj_json_is", 3, _json_is, deterministic=True)
    for name, function in _CLOCK.items():
        connection.create_function(name, 0, function)
    for name, aggregate in _AGGREGATES.items():
        connection.create_aggregate(name, 1, aggregate)


def _null_of_null(function: Function) -> Function:
    @wraps(function)
    def called(*values: Any) -> Any:
        return None if None in values else function(*values)

    return called


@lru_cache(maxsize=1000)
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _months_between(first: datetime, second: datetime) -> int:
    if second < first:
        return -_months_between(second, first)
    months = (second.year - first.year) * 12 + second.month - first.month
    rest = (second.day, second.time()) < (first.day, first.time())
    return months - rest


def _timestampdiff(unit: str, first: str, second: str) -> int:
    unit = unit.upper()
    start, end = _moment(first), _moment(second)
    if unit in _MONTHS:
        return int(_months_between(start, end) / _MONTHS[unit])
    if unit not in _UNITS:
        raise QueryError(f"timestampdiff knows no unit {unit}: write one of {', '.join(_UNITS)}.")
    return int((end - start) / _UNITS[unit])


def _date_format(text: str, form: str) -> str:
    form = re.sub("%.", lambda match: _FORMATS.get(match[0], match[0]), form)
    return _moment(text).strftime(form)


def _concat(*values: Any) -> str:
    return "".join(map(str, values))


def _concat_ws(between: str | None, *values: Any) -> str | None:
    """Join texts, nulls left out."""
    return None if between is None else between.join(str(v) for v in values if v is not None)


def _regexp(pattern: str, text: Any) -> bool:
    return re.search(pattern, str(text), re.IGNORECASE) is not None


def _substring_index(text: str, between: str, count: int) -> str:
    parts = text.split(between)
    return between.join(parts[:count] if count >= 0 else parts[count:])


_steps = lru_cache(maxsize=1000)(json_steps)
_loaded = lru_cache(maxsize=1000)(json.loads)


def _at(text: str | None, path: str) -> Any:
    """Return what is at a path; None where nothing is, or the text is not JSON."""
    try:
        value: Any = None if text is None else json.loads(text)
        step: Any
        for step in _steps(path):
            # As in MySQL, what is not an array is one with a single element.
            if step not in (0, -1) or isinstance(value, list):
                value = value[step]
    except (ValueError, TypeError, LookupError):
        return None
    return value


def _json_value(text: str | None, path: str) -> Any:
    """Return a single value at a path, null for arrays and objects."""
    value = _at(text, path)
    too_long = isinstance(value, int) and abs(value) >= 2**63
    return None if isinstance(value, list | dict) else str(value) if too_long else value


def _json_is(text: str | None, path: str, wanted: str) -> bool:
    return _is_same(_at(text, path), _loaded(wanted))


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; to Python true is 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(one, bool) is isinstance(other, bool) and one == other


_FUNCTIONS: dict[str, Function] = {
    "year": lambda text: _moment(text).year,
    "quarter": lambda text: (_moment(text).month + 2) // 3,
    "month": lambda text: _moment(text).month,
    "monthname": lambda text: _moment(text).strftime("%B"),
    "day": lambda text: _moment(text).day,
    "dayofmonth": lambda text: _moment(text).day,
    "dayofyear": lambda text: _moment(text).timetuple().tm_yday,
    "dayofweek": lambda text: _moment(text).isoweekday() % 7 + 1,
    "dayname": lambda text: _moment(text).strftime("%A"),
    "weekday": lambda text: _moment(text).weekday(),
    "hour": lambda text: _time(text).hour,
    "minute": lambda text: _time(text).minute,
    "second": lambda text: _time(text).second,
    "datediff": lambda end, start: (_moment(end).date() - _moment(start).date()).days,
    "timestampdiff": _timestampdiff,
    "date_format": _date_format,
    "concat": _concat,
    "substring_index": _substring_index,
    "char_length": lambda text: len(str(text)),
    "locate": lambda part, text: text.lower().find(part.lower()) + 1,
    "reverse": lambda text: str(text)[::-1],
    "greatest": lambda *values: max(values),
    "least": lambda *values: min(values),
}


def _time(text: str) -> datetime:
    """Return a moment with the time of a text that may be a time alone."""
    return _moment(text if "-" in text else f"2000-01-01 {text}")


_CLOCK: dict[str, Function] = {
    "now": lambda: f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    "curdate": lambda: date.today().isoformat(),
    "curtime": lambda: f"{datetime.now():%H:%M:%S}",
}


class _Spread:
    """The numbers of a group, of which the standard deviation or variance is asked for."""

    sample = False
    root = True

    def __init__(self) -> None:
        self._values: list[float] = []

    def step(self, value: float | None) -> None:
        """Take a number."""
        if value is not None:
            self._values.append(float(value))

    def finalize(self) -> float | None:
        """Return the result, null where there are too few numbers."""
        count = len(self._values) - self.sample
        if count < 1:
            return None
        mean = math.fsum(self._values) / len(self._values)
        variance = math.fsum((value - mean) ** 2 for value in self._values) / count
        return math.sqrt(variance) if self.root else variance


class _SampleDeviation(_Spread):
    sample = True


class _Variance(_Spread):
    root = False


class _SampleVariance(_Spread):
    sample, root = True, False


_AGGREGATES: dict[str, type[_Spread]] = {
    **dict.fromkeys(("std", "stddev", "stddev_pop"), _Spread),
    "stddev_samp": _SampleDeviation,
    **dict.fromkeys(("variance", "var_pop"), _Variance),
    "var_samp": _SampleVariance,
}
