"""Kinds of values in MySQL's SQL: their Python types, texts, and conversions.

An integer is an int, an exact number a `Decimal` with its digits after the point, a moment a
datetime, a time a timedelta; null is None.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal
from typing import Any, Literal

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import temporal

Family = Literal[
    "int", "decimal", "float", "text", "bytes", "json", "date", "datetime", "time", "null", "any"
]
Number = int | float | Decimal


class Hexadecimal(bytes):
    """The bytes of a hexadecimal literal, which stand for a number where a number is meant."""


SqlValue = int | float | Decimal | str | bytes | temporal.Temporal
"""A value that is not null."""

EXACT = Context(prec=200)
MAX_SCALE = 30
_LARGEST_EXPONENT = 400
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Kind:
    """The known properties of an expression's values before they are computed.

    Attributes
    ----------
    family
        The family of the type; ``"any"`` if only a database knows it.
    scale
        Digits after the point of decimals, of seconds in times.
    choices
        The permitted values of an enum.
    tag
        ``"unsigned"`` for unsigned integers, ``"year"`` for columns of years. ``"fixed"`` for
        floats that are written with all digits of their scale. For texts: ``"moment"`` if the
        server treats them as dates, ``"binary"`` if case counts, ``"mixed"`` if it counts on some
        servers, ``"unclear"`` if servers read different numbers in them, ``"whole"`` if they read
        whole numbers.
    single
        Whether these are values of 32-bit floats, of which servers write six digits. Kinds are
        compared without it, because servers calculate with 64 bits.
    """

    family: Family
    scale: int = 0
    choices: tuple[str, ...] = ()
    tag: str = ""
    single: bool = field(default=False, compare=False)

    @property
    def is_temporal(self) -> bool:
        """Whether values are dates or times."""
        return self.family in ("date", "datetime", "time")

    @property
    def is_exact(self) -> bool:
        """Whether values are exact numbers."""
        return self.family in ("int", "decimal")

    @property
    def is_condition(self) -> bool:
        """Whether SQLite treats the same values as true as MySQL."""
        return self.family in ("int", "float", "any") and self.tag != "fixed"

    @property
    def is_text(self) -> bool:
        """Whether values are texts, including enums, JSON and bytes."""
        return self.family in ("text", "json", "bytes")


UNSIGNED, YEAR = Kind("int", tag="unsigned"), Kind("int", tag="year")
INT, FLOAT, TEXT = Kind("int"), Kind("float"), Kind("text")
SINGLE = Kind("float", single=True)
NULL, ANY, JSON, BYTES = Kind("null"), Kind("any"), Kind("json"), Kind("bytes")
DATE, BINARY = Kind("date"), Kind("text", tag="binary")


def value_kind(kind: Kind) -> Kind:
    """Return the kind of computed values: a year outside a column is a plain number."""
    return UNSIGNED if kind == YEAR else kind


def decimal_kind(scale: int) -> Kind:
    """Return the kind of exact numbers with a number of digits after the point."""
    return Kind("decimal", min(scale, MAX_SCALE))


def fixed(scale: int) -> Kind:
    """Return the kind of floats that are shown with a number of digits after the point."""
    return Kind("float", min(scale, MAX_SCALE), tag="fixed")


def number(value: SqlValue, kind: Kind = ANY) -> Number:
    """Return a value that is not null as a number: int, `Decimal` or float."""
    match value:
        case bool():
            return int(value)
        case str():
            if kind.choices:
                return kind.choices.index(value) + 1 if value in kind.choices else 0
            match = _NUMBER.match(_json_digits(value) if kind.family == "json" else value)
            return float(match[1]) if match else 0.0
        case Hexadecimal():
            return int.from_bytes(value) & (2**64 - 1)
        case bytes():
            return number(value.decode("latin-1"))
        case date() | timedelta():
            if isinstance(value, timedelta) and value < timedelta(0):
                raise QueryError(
                    "SQL on SQLite: servers differ in the number of a negative time. Use "
                    "TIME_TO_SEC()."
                )
            return temporal.digits(value, kind.scale)
        case _:
            return value


def as_year(value: SqlValue) -> Number:
    """Return the number for a literal beside a column of years: two digits are those of a year.

    >>> as_year(24), as_year("99"), as_year(0), as_year("0")
    (2024, 1999, 0, 2000)
    """
    found = number(value)
    is_short = 0 < found < 100 or (found == 0 and str(value)[:1] == "0" and isinstance(value, str))
    return full_year(whole(found)) if is_short else found


def full_year(year: int) -> int:
    """Return the year for its last two digits, other years as they are."""
    return year + (2000 if year < 70 else 1900) if 0 <= year < 100 else year


def exact(value: SqlValue, kind: Kind = ANY) -> int | Decimal:
    """Return a value as an exact number, texts by their digits."""
    if isinstance(value, str) and not kind.choices:
        match = _NUMBER.match(_json_digits(value) if kind.family == "json" else value)
        found = Decimal(match[1]) if match else Decimal(0)
        if abs(found.adjusted()) > _LARGEST_EXPONENT:
            # An example is 9e99999999, whose digits would take too long.
            raise QueryError(f"SQL on SQLite: the text {value!r:.60} is out of range of numbers.")
        return found if match else 0
    found = number(value, kind)
    return Decimal(repr(found)) if isinstance(found, float) else found


def _json_digits(value: str) -> str:
    """Return the text in which servers read the number of a JSON value."""
    return json.loads(value) if value.startswith('"') else {"true": "1"}.get(value, value)


def json_value(written: str) -> Any:
    """Return a JSON value, a text in itself if it cannot be read."""
    try:
        return json.loads(written)
    except ValueError:
        return written


def leading_integer(value: str) -> int:
    """Return the integer at the beginning of a text, 0 without one.

    >>> leading_integer(" 1e2"), leading_integer("x")
    (1, 0)
    """
    match = _INTEGER.match(value)
    return int(match[1]) if match else 0


def whole(value: SqlValue, kind: Kind = ANY) -> int:
    """Return a value as an integer, rounded half away from zero (floats half to even)."""
    found = number(value, kind)
    if isinstance(found, float):
        return round(found)
    return int(rounded(found, 0)) if isinstance(found, Decimal) else found


def rounded(value: Decimal, scale: int) -> Decimal:
    """Return a decimal rounded to a number of digits after the point."""
    return unsigned_zero(value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, EXACT))


def cut(value: Decimal, scale: int) -> Decimal:
    """Return a decimal truncated to a number of digits after the point."""
    return unsigned_zero(value.quantize(Decimal(1).scaleb(-scale), ROUND_DOWN, EXACT))


def unsigned_zero(value: Decimal) -> Decimal:
    """Return a decimal, with zero unsigned as on servers."""
    return value if value else abs(value)


def check_zero(value: SqlValue) -> None:
    """Raise `QueryError` for a negative exact zero, which only divisions give.

    MariaDB treats it as less than zero and writes its sign; MySQL treats it as zero.
    """
    if isinstance(value, Decimal) and not value and value.is_signed():
        raise QueryError(
            "SQL on SQLite: servers differ in what the remainder (%, MOD) of a negative number is "
            "where it is zero. Use ABS() or ROUND() of it."
        )


def true(value: SqlValue | None, kind: Kind = ANY) -> bool | None:
    """Whether a value holds as a condition; None for null."""
    if value is None:
        return None
    if kind.choices and isinstance(value, str):
        return number(value, kind) != 0
    if kind.family == "json" and isinstance(value, str):
        found = json_value(value)
        if found is not True and (isinstance(found, bool) or not isinstance(found, int | float)):
            raise QueryError(
                f"SQL on SQLite: servers differ in whether the JSON value {value:.60} is true. "
                f"Compare it, as in: = true."
            )
        return bool(found)
    return value != timedelta(0) if isinstance(value, timedelta) else number(value) != 0


def text(value: SqlValue, kind: Kind = ANY) -> str:
    """Return a value that is not null as text."""
    check_zero(value)
    if kind.family == "decimal" and isinstance(value, int | Decimal):
        return f"{rounded(Decimal(value), kind.scale):f}"
    match value:
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case bool():
            return str(int(value))
        case float():
            if kind.tag == "fixed":
                return _fixed_text(value, kind.scale)
            return _float_text(float(f"{value:.6g}") if kind.single else value)
        case Decimal():
            return f"{value:f}"
        case date() | timedelta():
            return temporal.text(value, kind.scale)
        case _:
            return str(value)


def _fixed_text(value: float, scale: int) -> str:
    # The server writes the digits that identify a number, then zeros.
    digits = Decimal(repr(value))
    is_longer = -int(digits.as_tuple().exponent) > scale
    return f"{(value if is_longer else digits) or 0.0:.{scale}f}"


def _float_text(value: float) -> str:
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    point = len(digits) + int(exponent)
    if -14 <= point <= 15 or 0 < point < len(digits):
        return f"{Decimal(repr(value)).normalize():f}"
    shown = "".join(map(str, digits))
    rest = f".{shown[1:]}" if shown[1:] else ""
    return f"{'-' if sign else ''}{shown[0]}{rest}e{point - 1}"


def integer(value: int) -> int:
    """Return an integer if the database can hold it.

    Raises
    ------
    QueryError
        If it has more than 64 bits.
    """
    if -(2**63) <= value < 2**64:
        return value
    raise QueryError(f"SQL on SQLite: the integer {value} is out of range, as it is on MySQL.")


def floating(value: float) -> float:
    """Return a float unless it is infinite or NaN, which the database cannot hold."""
    if value - value == 0:
        return value
    raise QueryError(f"SQL on SQLite: the float {value} is out of range, as it is on MySQL.")
