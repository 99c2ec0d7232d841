"""One number that stands for the values of a row, computed by functions that connections know."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute
from dj_dagster.relational.backends.sqlite_functions import Registry

MOST = 100
"""SQLite refuses functions of more than 127 arguments."""

MASK = 2**60 - 1


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
    data = repr(values).encode(errors="surrogateescape")
    return zlib.crc32(data) * zlib.crc32(data[::-1]) & MASK


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
    values = [sa.func.length(c) if attribute.holds_bytes else c for c, attribute in columns]
    while len(values) > MOST:
        values = [sa.func.row_digest(*values[:MOST]), *values[MOST:]]
    return values
