"""Values of different kinds: compared, brought to a common kind, and cast, as in MySQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, TypeGuard

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import json_functions, temporal
from dj_dagster.relational.user_sql.kinds import (
    BYTES,
    DATE,
    FLOAT,
    INT,
    JSON,
    NULL,
    SINGLE,
    TEXT,
    UNSIGNED,
    Kind,
    Number,
    SqlValue,
    check_zero,
    decimal_kind,
    exact,
    fixed,
    json_value,
    leading_integer,
    number,
    rounded,
    text,
    value_kind,
    whole,
)

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

Convert = Callable[[SqlValue], SqlValue | None]


class _NoText(str):
    """A JSON value other than a string, in its written form."""

    __slots__ = ()


def moment(value: SqlValue) -> datetime | None:
    """Return a value that is not null as a moment, None if it is not one."""
    match value:
        case datetime():
            return value
        case date():
            return datetime.combine(value, time())
        case timedelta():
            return datetime.combine(date.today(), time()) + value
        case str():
            return temporal.moment(value)
        case bytes():
            return temporal.moment(value.decode("latin-1"))
        case _:
            return temporal.moment_of_number(value)


def duration(value: SqlValue) -> timedelta | None:
    """Return a value that is not null as a time, None if it is not one."""
    match value:
        case timedelta():
            return value
        case datetime():
            return temporal.time_of(value)
        case date():
            return timedelta()
        case str():
            return temporal.duration(value)
        case bytes():
            return temporal.duration(value.decode("latin-1"))
        case _:
            return temporal.duration_of_number(value)


def common(kinds: Iterable[Kind]) -> Kind | None:
    """Return the kind that holds values of several kinds, None if they cannot be combined."""
    known = [value_kind(kind) for kind in kinds if kind.family != "null"]
    families = {kind.family for kind in known}
    scale = max((kind.scale for kind in known), default=0)
    if not families:
        return NULL
    if families <= {"int"}:
        tags = {kind.tag for kind in known}
        return known[0] if len(tags) == 1 and "unsigned" in tags else _integers(tags)
    if families <= {"int", "decimal"}:
        return decimal_kind(scale)
    if all(kind.single for kind in known):
        return SINGLE
    if families <= {"int", "decimal", "float"}:
        return FLOAT if FLOAT in known else fixed(scale)
    if families <= {"date", "datetime"}:
        return Kind("datetime", scale) if "datetime" in families else known[0]
    if len(families) == 1:
        return _texts(known) if families == {"text"} else Kind(known[0].family, scale)
    if "any" in families or "bytes" in families:
        return None
    if "time" in families and families & {"date", "datetime"} and not families & {"text", "json"}:
        return None
    is_moment = any(kind.is_temporal or kind.tag == "moment" for kind in known)
    return Kind("text", tag="moment") if is_moment else TEXT


def _texts(kinds: list[Kind]) -> Kind:
    return Kind("text", tag="moment") if any(kind.tag == "moment" for kind in kinds) else TEXT


def _integers(tags: set[str]) -> Kind:
    return decimal_kind(0) if "unsigned" in tags else INT


def conform(value: SqlValue, kind: Kind, target: Kind) -> SqlValue | None:
    """Return a value that is not null as one of the common kind."""
    match target.family:
        case "text":
            return text(value, kind)
        case "float":
            return float(number(value, kind))
        case "decimal":
            return Decimal(value) if isinstance(value, int) else value
        case "datetime":
            return moment(value)
        case _:
            return value


def converters(one: Kind, other: Kind) -> tuple[Convert, Convert] | None:
    """Return the functions that make two kinds comparable, None if they cannot be compared."""
    families = {one.family, other.family}
    if "null" in families:
        return _same, _same
    if families & {"date", "datetime"}:
        if families & {"time", "bytes"}:
            return None
        if families & {"int", "decimal", "float"}:
            return _digits_of(one), _digits_of(other)
        return _read(moment), _read(moment)
    if "time" in families:
        if families & {"int", "decimal", "float"}:
            first, second = (_digits_of(k) if k.family == "time" else exact for k in (one, other))
            return first, second
        return _read(duration), _read(duration)
    if "moment" in (one.tag, other.tag) and not (one.is_text and other.is_text):
        return None
    if "any" in families:
        return None if families & {"bytes"} else (_same, _same)
    if one.is_text and other.is_text:
        if "bytes" in families:
            return None if "json" in families else (_bytes, _bytes)
        if families == {"json", "text"}:
            return _of_json(one), _of_json(other)
        return _same, _same
    if one.is_text or other.is_text or "float" in families:
        return _float_of(one), _float_of(other)
    return _same, _same


def precision(one: Kind, other: Kind) -> float:
    """Return the tolerance within which numbers are equal: floats of few digits as they are shown.

    Examples
    --------
    >>> precision(fixed(2), decimal_kind(1)), precision(FLOAT, INT)
    (0.005, 0.0)
    """
    numbers = {one.family, other.family} <= {"int", "decimal", "float"}
    if not numbers or (one.is_exact and other.is_exact) or FLOAT in (one, other):
        return 0.0
    return 5 / 10 ** (max(one.scale, other.scale) + 1)


def as_shown(convert: Convert, kind: Kind, other: Kind, literal: SqlValue | None) -> Convert:
    """Return a conversion that first rounds a decimal to its kind's digits, which quotients exceed.

    Parameters
    ----------
    other, literal
        The kind that it is compared with, which is exact or a literal text.
    """
    if kind.family != "decimal" or not (other.is_exact or isinstance(literal, str)):
        return convert
    # Zero keeps its sign, see `check_zero`.
    return lambda value: convert(rounded(Decimal(exact(value)), kind.scale) if value else value)


def compare(one: SqlValue, other: SqlValue, nearly: float = 0.0) -> int:
    """Return -1, 0 or 1 for two values made comparable."""
    check_zero(one)
    check_zero(other)
    if isinstance(one, _NoText) is not isinstance(other, _NoText) and one == other:
        raise QueryError(
            f"SQL on SQLite: servers differ in whether the JSON value {one!s:.60} equals this "
            f"text. Use JSON_VALUE()."
        )
    if nearly and abs(float(number(one)) - float(number(other))) < nearly:
        return 0
    lone_text = isinstance(one, str) is not isinstance(other, str)
    if lone_text or isinstance(one, float) is not isinstance(other, float):
        one, other = float(number(one)), float(number(other))
    # They are of types that can be compared, see `converters`.
    return (one > other) - (one < other)  # pyright: ignore[reportOperatorIssue]


def json_number(value: SqlValue, other: SqlValue, *, is_truth: bool, by_order: bool) -> Number:
    """Return the number of a JSON value that is compared with a number.

    Parameters
    ----------
    is_truth
        Whether the other is written as true or false.
    by_order
        Whether the order counts, not only equality.

    Raises
    ------
    QueryError
        If servers differ: MySQL compares values of JSON, in which true is not 1.
    """
    found = json_value(text(value))
    shown = number(value, JSON)
    is_alike = isinstance(found, int | float) and isinstance(found, bool) is is_truth
    if not is_alike and (by_order or shown == number(other)):
        raise QueryError(
            f"SQL on SQLite: servers differ in how the JSON value {value!s:.60} compares with "
            f"{'true or false' if is_truth else 'a number'}. Use JSON_VALUE()."
        )
    return shown


def _same(value: SqlValue) -> SqlValue:
    return value


def _of_json(kind: Kind) -> Convert:
    return _text_of_json if kind.family == "json" else _same


def _text_of_json(value: SqlValue) -> str:
    written = text(value)
    return json_functions.unquote(written) if written.startswith('"') else _NoText(written)


def _read(convert: Convert) -> Convert:
    """Return a conversion that refuses texts without a valid date or time, where servers vary."""

    def read(value: SqlValue) -> SqlValue | None:
        found = convert(value)
        if found is None and isinstance(value, str):
            raise QueryError(
                f"SQL on SQLite: the text {value!r:.60} is compared with a date or time, and is "
                f"none that SQLite knows."
            )
        return found

    return read


def _bytes(value: SqlValue) -> bytes:
    return value if isinstance(value, bytes) else text(value).encode()


def _float_of(kind: Kind) -> Convert:
    return lambda value: float(number(value, kind))


def _digits_of(kind: Kind) -> Convert:
    """Return the function from a date or time to a number, which may be only a date's digits."""
    if kind.family == "date":
        return lambda value: number(value) * 1_000_000
    if kind.family in ("datetime", "time"):
        return lambda value: number(value, Kind("datetime", 6))
    return _moment_digits


def _moment_digits(value: SqlValue) -> Number:
    """Return the digits of the moment that a number stands for, otherwise the number."""
    written = exact(value)
    found = temporal.moment_of_number(written) if written >= 101 else None
    return written if found is None else temporal.digits(found, 6)


_SIGNED = 2**63
_INTEGERS = ("BIGINT", "INT", "UBIGINT", "UINT")
_NUMBERS = (*_INTEGERS, "DECIMAL", "DOUBLE")


def cast_to(target: Expr, kind: Kind) -> tuple[Convert | None, Kind]:
    """Return the function that converts a kind's values to a type, or None, and their new kind."""
    name = target.this.name if hasattr(target.this, "name") else str(target.this)
    sizes = [int(size.this.this) for size in target.expressions]
    if name in _INTEGERS and kind.is_temporal and kind.scale:
        # MySQL rounds the fraction, MariaDB truncates it.
        return None, INT
    if name in _NUMBERS and kind.tag == "moment":
        return None, INT
    if name in ("BIGINT", "INT"):
        return (lambda value: _signed(value, kind)), INT
    if name in ("UBIGINT", "UINT"):
        return (lambda value: _unsigned(value, kind)), UNSIGNED
    if name == "DECIMAL":
        precision, scale = (*sizes, 0)[:2] if sizes else (10, 0)
        return (lambda value: _decimal(value, kind, precision, scale)), decimal_kind(scale)
    if name in ("DOUBLE",):
        return (lambda value: float(number(value, kind))), FLOAT
    if name in ("CHAR", "CHARACTER_SET", "VARCHAR", "NCHAR", "TEXT"):
        return _text_of(target, name, kind, sizes[0] if sizes else None)
    if name in ("BINARY", "VARBINARY"):
        size = sizes[0] if sizes else None
        return (lambda value: _cast_bytes(value, kind)[:size]), BYTES
    if name == "DATE":
        return _date, DATE
    if name in ("DATETIME", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ"):
        places = sizes[0] if sizes else 0
        return (lambda value: _rounded(moment(value), places)), Kind("datetime", places)
    if name == "TIME":
        places = sizes[0] if sizes else 0
        return (lambda value: _rounded(duration(value), places)), Kind("time", places)
    return None, TEXT


_BEYOND_THREE_BYTES = re.compile("[\U00010000-\U0010ffff]")


def _text_of(target: Expr, name: str, kind: Kind, size: int | None) -> tuple[Convert | None, Kind]:
    letters = "utf8" if name == "NCHAR" else "utf8mb4"
    if name == "CHARACTER_SET":
        letters = target.args["kind"].name.lower()
    # In a numeric context MariaDB takes whole numbers.
    made = Kind("text", tag="unclear")
    if letters == "utf8mb4":
        return (lambda value: text(value, kind)[:size]), made
    if letters in ("utf8", "utf8mb3"):
        return (lambda value: _BEYOND_THREE_BYTES.sub("?", text(value, kind))[:size]), made
    # Servers put question marks for the characters that other sets lack.
    return None, made


def _cast_bytes(value: SqlValue, kind: Kind) -> bytes:
    return value if isinstance(value, bytes) else text(value, kind).encode()


def _signed(value: SqlValue, kind: Kind) -> int:
    found = leading_integer(value) if is_text(value, kind) else whole(value, kind)
    if is_text(value, kind) and not -_SIGNED <= found < _SIGNED:
        raise QueryError(f"SQL on SQLite: the text {value!r} is out of range of integers.")
    if found >= _SIGNED and kind.tag == "unsigned":
        return found - 2 * _SIGNED
    return max(min(found, _SIGNED - 1), -_SIGNED)


def _unsigned(value: SqlValue, kind: Kind) -> int:
    found = leading_integer(value) if is_text(value, kind) else whole(value, kind)
    if found < 0 and isinstance(value, Decimal | float):
        return 0
    return min(found, 2 * _SIGNED - 1) & (2 * _SIGNED - 1)


def is_text(value: SqlValue, kind: Kind) -> TypeGuard[str]:
    """Whether a value is a text and not one of an enum's choices."""
    return isinstance(value, str) and not kind.choices


def _decimal(value: SqlValue, kind: Kind, precision: int, scale: int) -> Decimal:
    found = rounded(Decimal(exact(value, kind)), scale)
    largest = Decimal(10**precision - 1).scaleb(-scale)
    return max(min(found, largest), -largest)


def _date(value: SqlValue) -> date | None:
    found = moment(value)
    return found and found.date()


def _rounded(value: datetime | timedelta | None, places: int) -> datetime | timedelta | None:
    return None if value is None else temporal.round_to(value, places)
