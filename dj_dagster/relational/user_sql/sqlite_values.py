"""Conversion of values between SQLite and expressions of MySQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.model.types import AttributeType, Family
from dj_dagster.relational.user_sql import temporal
from dj_dagster.relational.user_sql.arithmetic import check_truth
from dj_dagster.relational.user_sql.programs import Program
from dj_dagster.relational.user_sql.values import (
    ANY,
    BYTES,
    FLOAT,
    INT,
    JSON,
    TEXT,
    Kind,
    decimal_kind,
    exact,
    number,
    rounded,
    text,
    true,
)

EXACT_DIGITS = 15
"""Number of digits up to which SQLite keeps decimals exactly as numbers; longer ones are text."""


def is_long(kind: AttributeType) -> bool:
    """Whether values of a type are decimals of too many digits, which SQLite holds as text."""
    return kind.family is Family.DECIMAL and (kind.size or 65) > EXACT_DIGITS


def quoted(value: str) -> str:
    """Return a text as a literal of SQLite."""
    return "'" + value.replace("'", "''") + "'"


def number_text(value: Any) -> str:
    """Return a number as a literal of SQLite."""
    if isinstance(value, float):
        return repr(value)
    value = Decimal(value)
    if value == value.to_integral_value():
        whole = int(value)
        return str(whole) if -(2**63) <= whole < 2**63 else repr(float(value))
    return repr(float(value))


def temporal_literal(found: Any, kind: Kind) -> str | None:
    """Return a date, moment or time as columns of a kind hold it, None if they cannot hold it."""
    if kind.family == "date":
        is_day = found == datetime(found.year, found.month, found.day)
        return quoted(found.date().isoformat()) if is_day else None
    if kind.family == "time" and not timedelta(0) <= found < timedelta(days=1):
        return None
    fits = temporal.round_to(found, kind.scale) == found
    return quoted(temporal.text(found, kind.scale)) if fits else None


def kind_of(kind: AttributeType | None) -> Kind:
    """Return the kind of an attribute's values from its type."""
    if kind is None:
        return ANY
    scale = kind.size or 0
    found = {
        Family.INTEGER: INT, Family.BOOL: INT, Family.FLOAT: FLOAT, Family.STRING: TEXT,
        Family.ENUM: Kind("text", 0, kind.values), Family.DATE: Kind("date"),
        Family.DATETIME: Kind("datetime", scale), Family.TIME: Kind("time", scale),
        Family.DECIMAL: decimal_kind(kind.scale or 0), Family.JSON: JSON,
    }  # fmt: skip
    return found.get(kind.family, BYTES)


def decoder(of: Kind) -> Callable[[Any], Any]:
    """Return the function from SQLite's value to that of the expression."""
    match of.family:
        case "decimal":
            return lambda value: _with_digits(Decimal(str(value)), of.scale)
        case "float":
            return float
        case "date":
            return lambda value: date.fromisoformat(value[:10])
        case "datetime":
            return temporal.moment
        case "time":
            return temporal.duration
        case _:
            return lambda value: value


def _with_digits(value: Decimal, scale: int) -> Decimal:
    # Means have more digits internally than are shown.
    return value if -int(value.as_tuple()[2]) > scale else rounded(value, scale)


def runner(
    program: Program, decoders: Sequence[Callable[[Any], Any]], encode: Callable[[Any], Any]
) -> Callable[[Sequence[Any]], Any]:
    """Return a function that runs a program with values of SQLite and returns one of SQLite."""

    def run(values: Sequence[Any]) -> Any:
        row = [
            None if value is None else decode(value)
            for value, decode in zip(values, decoders, strict=True)
        ]
        found = program.run(row)
        return None if found is None else encode(found)

    return run


def encoder(program: Program, mode: str) -> tuple[Callable[[Any], Any], Kind]:
    """Return the function from an expression's value to SQLite's, and its kind."""
    kind = program.kind
    if mode == "truth":
        check_truth(kind)
        return (lambda value: int(bool(true(value, kind)))), INT
    if mode == "text":
        return (lambda value: text(value, kind)), TEXT
    if mode == "exact":
        return (lambda value: str(value)), kind
    if mode == "float":
        return (lambda value: float(number(value, kind))), FLOAT
    if mode == "whole":
        return (lambda value: _int64(int(rounded(Decimal(exact(value, kind)), 0)))), INT
    return (lambda value: _encoded(value, kind)), kind


def _encoded(value: Any, kind: Kind) -> Any:
    match value:
        case int():
            return _int64(int(value))
        case Decimal():
            value = rounded(value, kind.scale) if kind.family == "decimal" else value
            whole = value == value.to_integral_value() and not kind.scale
            return _int64(int(value)) if whole else float(value)
        case date() | timedelta():
            return temporal.text(value, kind.scale)
        case _:
            return value


def _int64(value: int) -> int:
    if -(2**63) <= value < 2**63:
        return value
    raise QueryError(f"SQLite holds no integer of more than 64 bits: {value}.")
