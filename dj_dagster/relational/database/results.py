"""The rows of a user's own statement, read as from a driver's cursor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class QueryResult:
    """All rows of a statement, read as from a driver's cursor.

    Parameters
    ----------
    rows
        Tuples, or dicts where these were asked for.
    rowcount
        Number of rows changed by a statement that does not return rows, -1 if the driver does not
        report it.
    """

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows
