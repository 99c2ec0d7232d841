"""One number that stands for the values of a row, computed by functions that connections know."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family
from dj_dagster.relational.backends.sqlite_functions import Registry

MOST = 100
"""SQLite refuses functions of more than 127 arguments."""

MASK = 2**60 - 1

_NUMBERS = (Family.INTEGER, Family.BOOL, Family.FLOAT, Family.DECIMAL)


def register(connection: Registry) -> None:
    """Make the functions known to a connection."""
    connection.create_function("row_digest", -1, digest, deterministic=True)
    connection.create_aggregate("row_digest_xor", -1, _Xor)


def digest(*values: Any) -> int:
    """Return 60 bits that stand for values as SQLite has them.

    A checksum alone is linear: two values exchanged between rows would cancel.

    >>> digest(1, "a") ^ digest(2, "b") == digest(1, "b") ^ digest(2, "a")
    False
    """
    if bytes in map(type, values):
        values = tuple(map(legible, values))
    data = repr(values).encode(errors="surrogateescape")
    return zlib.crc32(data) * zlib.crc32(data[::-1]) & MASK


def legible(value: Any) -> Any:
    """Return the text that bytes are, themselves where they are none."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


class _Xor:
    """The digests of a group of rows."""

    def __init__(self) -> None:
        self._all = 0

    def step(self, *values: Any) -> None:
        """Take a row."""
        self._all ^= digest(*values)

    def finalize(self) -> int:
        """Return them in one number."""
        return self._all


def arguments(columns: Sequence[tuple[sa.ColumnElement[Any], Attribute]]) -> list[Any]:
    """Return what to give to the functions for columns."""
    values = [_argument(column, attribute) for column, attribute in columns]
    while len(values) > MOST:
        values = [sa.func.row_digest(*values[:MOST]), *values[MOST:]]
    return values


def _argument(column: sa.ColumnElement[Any], attribute: Attribute) -> Any:
    if attribute.holds_bytes:
        return sa.func.length(column)
    if attribute.type is not None and attribute.type.family in _NUMBERS:
        return column
    # The driver calls no function with a text that is not UTF-8, which SQLite may hold.
    return sa.cast(column, sa.LargeBinary)
