"""Translation of CAST and CONVERT."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

from dj_dagster.errors import QueryError
from dj_dagster.relational.user_sql import comparing, temporal
from dj_dagster.relational.user_sql.values import (
    BYTES,
    DATE,
    FLOAT,
    INT,
    TEXT,
    UNSIGNED,
    Kind,
    decimal_kind,
    exact,
    leading_integer,
    number,
    rounded,
    text,
    whole,
)

Convert = Callable[[Any], Any]
_SIGNED = 2**63
_INTEGERS = ("BIGINT", "INT", "UBIGINT", "UINT")
_NUMBERS = (*_INTEGERS, "DECIMAL", "DOUBLE")


def cast_to(target: Any, kind: Kind) -> tuple[Convert | None, Kind]:
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
        size = sizes[0] if sizes else None
        # In a numeric context MariaDB takes whole numbers.
        return (lambda value: text(value, kind)[:size]), Kind("text", tag="unclear")
    if name in ("BINARY", "VARBINARY"):
        size = sizes[0] if sizes else None
        return (lambda value: _bytes(value, kind)[:size]), BYTES
    if name == "DATE":
        return _date, DATE
    if name in ("DATETIME", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ"):
        places = sizes[0] if sizes else 0
        return (lambda value: _rounded(comparing.moment(value), places)), Kind("datetime", places)
    if name == "TIME":
        places = sizes[0] if sizes else 0
        return (lambda value: _rounded(comparing.duration(value), places)), Kind("time", places)
    return None, TEXT


def _bytes(value: Any, kind: Kind) -> bytes:
    return value if isinstance(value, bytes) else text(value, kind).encode()


def _signed(value: Any, kind: Kind) -> int:
    found = leading_integer(value) if _is_text(value, kind) else whole(value, kind)
    if _is_text(value, kind) and not -_SIGNED <= found < _SIGNED:
        raise QueryError(f"SQL on SQLite: the text {value!r} is out of range of integers.")
    if found >= _SIGNED and kind.tag == "unsigned":
        return found - 2 * _SIGNED
    return max(min(found, _SIGNED - 1), -_SIGNED)


def _unsigned(value: Any, kind: Kind) -> int:
    found = leading_integer(value) if _is_text(value, kind) else whole(value, kind)
    if found < 0 and isinstance(value, Decimal | float):
        return 0
    return min(found, 2 * _SIGNED - 1) & (2 * _SIGNED - 1)


def _is_text(value: Any, kind: Kind) -> bool:
    return isinstance(value, str) and not kind.choices


def _decimal(value: Any, kind: Kind, precision: int, scale: int) -> Decimal:
    found = rounded(Decimal(exact(value, kind)), scale)
    largest = Decimal(10**precision - 1).scaleb(-scale)
    return max(min(found, largest), -largest)


def _date(value: Any) -> date | None:
    found = comparing.moment(value)
    return found and found.date()


def _rounded(value: Any, places: int) -> Any:
    return None if value is None else temporal.round_to(value, places)
