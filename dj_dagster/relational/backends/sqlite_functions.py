"""Functions added to connections to SQLite: MySQL's expressions, aggregates and digests.

MySQL's expressions are run by ``dj_mysql``; see `dj_dagster.relational.user_sql.translation`.
"""

from __future__ import annotations

import json
import math
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache, wraps
from typing import Any, Protocol

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family
from dj_dagster.relational.backends.common import Element
from dj_dagster.relational.user_sql import json_functions, temporal
from dj_dagster.relational.user_sql.arithmetic import quotient
from dj_dagster.relational.user_sql.emission import SQLiteValue
from dj_dagster.relational.user_sql.kinds import EXACT, rounded
from dj_dagster.relational.user_sql.translation import evaluate

Function = Callable[..., SQLiteValue]

_failure = threading.local()


class Registry(Protocol):
    """The methods of Python's connection to SQLite that are used here."""

    def create_function(
        self, name: str, narg: int, func: Function, *, deterministic: bool = False
    ) -> None:
        """Register a function for use in SQL."""
        ...

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: type) -> None:
        """Register an aggregate for use in SQL."""
        ...


def register_functions(connection: Registry) -> None:
    """Make the functions known to a connection."""
    connection.create_function("dj_mysql", -1, _told(evaluate), deterministic=True)
    # Expressions with another value at each evaluation.
    connection.create_function("dj_mysql_now", -1, _told(evaluate))
    # With two arguments, instead of SQLAlchemy's function, which is case-sensitive.
    connection.create_function("regexp", 2, _regexp, deterministic=True)
    connection.create_function("dj_shown", 2, shown, deterministic=True)
    connection.create_function("dj_whole", 1, _whole, deterministic=True)
    connection.create_function("dj_order", 2, placed, deterministic=True)
    connection.create_function("dj_ordered_time", 2, ordered_time, deterministic=True)
    connection.create_function("dj_json_value", 2, _json_value, deterministic=True)
    connection.create_function("dj_json_is", 3, _json_is, deterministic=True)
    connection.create_function("dj_all_bits", 0, _all_bits)
    for name, (count, aggregate) in AGGREGATES.items():
        connection.create_aggregate(name, count, aggregate)


def failure() -> DataJointError | None:
    """Return and forget the error of the last function that failed in this thread.

    SQLite itself reports only that a function failed.
    """
    error = getattr(_failure, "error", None)
    _failure.error = None
    return error


def _told(function: Function) -> Function:
    @wraps(function)
    def called(source: str, *arguments: SQLiteValue) -> SQLiteValue:
        try:
            return function(source, *arguments)
        except DataJointError as error:
            _failure.error = error
            raise
        except Exception as error:
            message = f"SQLite cannot do {source!r} with a value that it met: {error}"
            _failure.error = QueryError(message)
            raise

    return called


def _regexp(pattern: str | None, text: SQLiteValue) -> bool | None:
    if pattern is None or text is None:
        return None
    return re.search(pattern, str(text), re.IGNORECASE) is not None


_loaded = lru_cache(maxsize=1000)(json.loads)


def _json_value(text: str | None, path: str) -> SQLiteValue:
    """Return a single value at a path, null for arrays and objects."""
    value = json_functions.at(text, path)
    too_long = isinstance(value, int) and abs(value) >= 2**63
    return None if isinstance(value, list | dict) else str(value) if too_long else value


def _json_is(text: str | None, path: str, wanted: str) -> bool:
    return _is_same(json_functions.at(text, path), _loaded(wanted))


def _is_same(one: object, other: object) -> bool:
    """Whether two values of JSON are equal; unlike in Python, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[k], other[k]) for k in one)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(one, bool) is isinstance(other, bool) and one == other


class _Spread:
    """An aggregate of numbers that gives their standard deviation or variance."""

    sample = False
    root = True

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0

    def step(self, value: float | None) -> None:
        """Take a number, by the recurrence with which servers get their last digits."""
        if value is not None:
            self._count += 1
            away = float(value) - self._mean
            self._mean += away / self._count
            self._squares += away * (float(value) - self._mean)

    def finalize(self) -> float | None:
        """Return the result, null where there are too few numbers."""
        count = self._count - self.sample
        if count < 1:
            return None
        variance = self._squares / count
        return math.sqrt(variance) if self.root else variance


class _SampleDeviation(_Spread):
    sample = True


class _Variance(_Spread):
    root = False


class _SampleVariance(_Spread):
    sample, root = True, False


class _Sum:
    """A sum of exact numbers."""

    def __init__(self) -> None:
        self._sum: int | Decimal = 0
        self._count = 0

    def step(self, value: float | str | None) -> None:
        """Take a number."""
        if value is None:
            return
        self._count += 1
        if isinstance(value, int) and isinstance(self._sum, int):
            self._sum += value
        else:
            self._sum = EXACT.add(Decimal(self._sum), Decimal(str(value)))

    def finalize(self) -> SQLiteValue:
        """Return the sum, null without values; as text where SQLite lacks the number."""
        return _number(self._sum) if self._count else None


class _ExactSum(_Sum):
    def finalize(self) -> str | None:
        """Return the sum with all digits that the server keeps, zeros too; null without values."""
        return str(self._sum) if self._count else None


class _Mean(_Sum):
    def finalize(self) -> str | None:
        """Return the mean with all digits that the server keeps, zeros too; null without values."""
        return str(quotient(Decimal(self._sum), Decimal(self._count))) if self._count else None


def _number(value: int | Decimal) -> float | str:
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    found = value.normalize(EXACT)
    return float(found) if len(found.as_tuple()[1]) <= 15 else str(value)


def shown(value: float | str | None, scale: int) -> SQLiteValue:
    """Return an exact number with a given number of digits after the point."""
    if value is None:
        return None
    found = rounded(Decimal(str(value)), scale)
    return _number(found if scale else int(found))


def _whole(value: float | str | None) -> SQLiteValue:
    """Return a sum of integers, which is text where SQLite lacks the number."""
    if isinstance(value, str):
        raise OverflowError("SQLite holds no integer of more than 64 bits")
    return value


class _Least:
    """The least value of a group, in an order that is not SQLite's own."""

    def __init__(self) -> None:
        self._found: tuple[Any, SQLiteValue] | None = None

    def step(self, value: SQLiteValue, how: str) -> None:
        """Take a value, and the kind of the order."""
        if value is None:
            return
        place = _comparable(value, how)
        if self._found is None or self._is_nearer(place, self._found[0]):
            self._found = place, value

    def finalize(self) -> SQLiteValue:
        """Return the value, null without values."""
        return None if self._found is None else self._found[1]

    def _is_nearer(self, one: Any, other: Any) -> bool:
        return one < other


class _Greatest(_Least):
    def _is_nearer(self, one: Any, other: Any) -> bool:
        return one > other


def _comparable(value: Any, how: str) -> Any:
    """Return a key by which Python orders a value as MySQL does, for values that are not null."""
    if how == "decimal":
        return Decimal(str(value))
    if how == "time" and value[0] != "-":
        # A longer text is a greater time, since all have the same digits after the point.
        return len(value), value
    return (-len(value), value.translate(_MIRRORED)) if how == "time" else placed(value, how)


_MIRRORED = str.maketrans("0123456789", "9876543210")


def placed(value: Any, how: str) -> SQLiteValue:
    """Return a key by which SQLite orders a value as MySQL does.

    Parameters
    ----------
    how
        ``time``, ``decimal``, or the values of an enum as JSON.
    """
    if value is None:
        return None
    if how == "time":
        found = temporal.duration(value)
        return None if found is None else found // timedelta(microseconds=1)
    if how == "decimal":
        return f"{int(EXACT.scaleb(Decimal(str(value)), 30)) + 10**96:097d}"
    choices = _choices(how)
    return choices.index(value) if value in choices else -1


def ordered_time(value: float | str | None, scale: int) -> str | None:
    """Return the time from its key in an order; see `user_sql.emission.time_order`."""
    if isinstance(value, str):
        return value.removeprefix("0")
    return None if value is None else temporal.text(timedelta(seconds=value), scale)


_choices: Callable[[str], list[str]] = lru_cache(maxsize=100)(json.loads)


def _all_bits() -> SQLiteValue:
    raise OverflowError("SQLite holds no integer of more than 64 bits")


class _BitOr:
    start = 0

    def __init__(self) -> None:
        self._bits = self.start

    def step(self, value: int | None) -> None:
        """Take an integer."""
        if value is not None:
            self._bits = self._joined(self._bits, value)

    def finalize(self) -> int:
        """Return the combined bits, as a signed number where SQLite lacks the unsigned one."""
        found = self._bits & (2**64 - 1)
        if found >= 2**63:
            raise OverflowError("SQLite holds no integer of more than 64 bits")
        return found

    def _joined(self, one: int, other: int) -> int:
        return one | other


class _BitXor(_BitOr):
    def _joined(self, one: int, other: int) -> int:
        return one ^ other


class _BitAnd(_BitOr):
    start = -1

    def _joined(self, one: int, other: int) -> int:
        return one & other


class _CountDistinct:
    """The number of distinct combinations of values, without those with a null."""

    def __init__(self) -> None:
        self._seen: set[tuple[SQLiteValue, ...]] = set()

    def step(self, *values: SQLiteValue) -> None:
        """Take a row."""
        if None not in values:
            self._seen.add(values)

    def finalize(self) -> int:
        """Return the number of combinations."""
        return len(self._seen)


class _GroupConcat:
    """The joined texts of a group; the first argument holds the options."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._rows: list[tuple[str, tuple[SQLiteValue, ...]]] = []

    def step(self, options: str, *values: Any) -> None:
        """Take a row: its texts, then the values to order it by."""
        self._options = self._options or json.loads(options)
        count = self._options["values"]
        if None not in values[:count]:
            self._rows.append(("".join(values[:count]), values[count:]))

    def finalize(self) -> str | None:
        """Return the text, null without rows."""
        if not self._rows:
            return None
        rows = self._rows
        if self._options["distinct"]:
            rows = list({text: (text, order) for text, order in reversed(rows)}.values())[::-1]
        descending = self._options["descending"]
        for place in reversed(range(len(descending))):
            rows.sort(key=lambda row, n=place: _order(row[1][n]), reverse=descending[place])
        return self._options["separator"].join(text for text, _ in rows)


def _order(value: SQLiteValue) -> tuple[int, SQLiteValue]:
    """Return a key by which nulls come first, then numbers, then texts regardless of case."""
    if value is None:
        return (0, 0)
    return (2, value.casefold()) if isinstance(value, str) else (1, value)


AGGREGATES: dict[str, tuple[int, type]] = {
    "dj_std": (1, _Spread),
    "dj_stddev_samp": (1, _SampleDeviation),
    "dj_variance": (1, _Variance),
    "dj_var_samp": (1, _SampleVariance),
    "dj_sum": (1, _Sum),
    "dj_exact_sum": (1, _ExactSum),
    "dj_avg": (1, _Mean),
    "dj_min": (2, _Least),
    "dj_max": (2, _Greatest),
    "dj_bit_or": (1, _BitOr),
    "dj_bit_xor": (1, _BitXor),
    "dj_bit_and": (1, _BitAnd),
    "dj_count_distinct": (-1, _CountDistinct),
    "dj_group_concat": (-1, _GroupConcat),
}
"""The number of arguments and the class of each aggregate, by name."""


MOST = 100
"""Number of arguments for a call; SQLite refuses more than 127."""

MASK = 2**60 - 1

_NUMBERS = (Family.INTEGER, Family.BOOL, Family.FLOAT, Family.DECIMAL)


def register_digests(connection: Registry) -> None:
    """Make the functions known to a connection."""
    connection.create_function("row_digest", -1, digest, deterministic=True)
    connection.create_aggregate("row_digest_xor", -1, _Xor)


def digest(*values: SQLiteValue) -> int:
    """Return a digest of 60 bits of values as SQLite has them.

    A checksum alone is linear: an exchange of two values between rows would cancel out.

    >>> digest(1, "a") ^ digest(2, "b") == digest(1, "b") ^ digest(2, "a")
    False
    """
    if bytes in map(type, values):
        values = tuple(map(legible, values))
    data = repr(values).encode(errors="surrogateescape")
    return zlib.crc32(data) * zlib.crc32(data[::-1]) & MASK


def legible(value: SQLiteValue) -> SQLiteValue:
    """Return the text of bytes, or the bytes themselves if they are not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


class _Xor:
    """An aggregate that combines the digests of a group of rows."""

    def __init__(self) -> None:
        self._all = 0

    def step(self, *values: SQLiteValue) -> None:
        """Take a row."""
        self._all ^= digest(*values)

    def finalize(self) -> int:
        """Return the combined digest."""
        return self._all


def arguments(columns: Sequence[tuple[Element, Attribute]]) -> list[Element]:
    """Return the arguments that pass columns to the digest functions."""
    values = [_argument(column, attribute) for column, attribute in columns]
    while len(values) > MOST:
        values = [sa.func.row_digest(*values[:MOST]), *values[MOST:]]
    return values


def _argument(column: Element, attribute: Attribute) -> Element:
    if attribute.holds_bytes:
        return sa.func.length(column)
    if attribute.type is not None and attribute.type.family in _NUMBERS:
        return column
    # The driver fails to call a function with a text that is not UTF-8, which SQLite may hold.
    return sa.cast(column, sa.LargeBinary)
