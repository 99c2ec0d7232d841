"""Membership in many values for MySQL, written into the statement.

As parameters of SQLAlchemy and the driver, ten thousand of them take longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from dj_dagster.relational.sql_elements import LongPieces

FEW = 20
"""Up to so many rows are passed as parameters, so that statements stay alike."""

_LITERALS: dict[type, Callable[[Any], str]] = {
    int: str,
    str: lambda text: "'" + text.replace("'", "''") + "'",
    bytes: lambda value: f"x'{value.hex()}'",
    date: lambda value: f"'{value.isoformat()}'",
    datetime: lambda value: f"'{value.isoformat(' ')}'",
    Decimal: lambda value: f"{value:f}",
}


def among(
    columns: Sequence[sa.ColumnElement[Any]], rows: Sequence[tuple[Any, ...]]
) -> sa.ColumnElement[bool] | None:
    """Return the condition that the columns together have one of many values.

    None for few rows, and for values that are better left to the driver.
    """
    if len(rows) <= FEW:
        return None
    texts = [_literals([row[n] for row in rows]) for n in range(len(columns))]
    given = [text for text in texts if text is not None]
    if len(given) < len(columns):
        return None
    if len(given) == 1:
        return LongPieces([columns[0], f" IN ({','.join(given[0])})"])
    values = "),(".join(map(",".join, zip(*given, strict=True)))
    return LongPieces([sa.tuple_(*columns), f" IN (({values}))"])


def _literals(values: Sequence[Any]) -> list[str] | None:
    """Return values of one type as SQL."""
    kinds = set(map(type, values))
    kind = kinds.pop()
    if kinds or kind not in _LITERALS:
        return None
    if kind is str:
        text = "".join(values)
        if "\\" in text:
            # What a backslash means depends on the server's settings.
            return None
        if "'" not in text:
            return [f"'{value}'" for value in values]
    return list(map(_LITERALS[kind], values))
