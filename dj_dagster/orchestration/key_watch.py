"""What has changed in one table since it was looked at: rows at its end at once, others by counts.

New rows most often come last, in the order of the key or, in SQLite, of the rows themselves: these
are found in the time that they take to read. Whether there were other changes shows in the numbers
of rows, and in sums of their keys, over a thousand or so ranges of the key.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.model.heading import Attribute
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import Family
from dj_dagster.orchestration.key_pages import beyond
from dj_dagster.orchestration.regions import EVERYTHING, Key, Region
from dj_dagster.relational.algebra.algebra import all_rows
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.sql.lowering import Lowering

RANGES = 1000
MOST_RANGES = 8 * RANGES
MERGED = 8

AT_ONCE = 10_000
"""Rows at the end that are read one by one, at most."""

Counts = dict[int, tuple[int, ...]]


class KeyWatch:
    """Remembers how the keys of a table were.

    Nothing is held but counts: after a restart the table is looked at as a whole.

    Attributes
    ----------
    seconds
        What the last comparison of counts took.
    compared
        When it ended, by `time.monotonic`.
    """

    def __init__(self, connection: Connection, name: TableName) -> None:
        self._connection = connection
        self._name = name
        self._by_row = connection.backend.name == "sqlite"
        self._last: tuple[Any, ...] | None = None
        self._start, self._width = 0, 0
        self._counts: Counts | None = None
        self._replaced = False
        self.seconds = 0.0
        self.compared = 0.0

    def appended(self) -> list[Key] | None:
        """Return the keys of new rows at the end, None if there are too many to read.

        They need not be all that has changed: see `compare`.
        """
        if self._counts is None:
            return []
        last = self._read_last()
        if self._by_row and self._last is not None and self._changed(self._last):
            # Another row has come where the last one was.
            self._replaced = True
            return []
        if last == self._last or last is None:
            self._last = last
            return []
        rows = self._after(self._last)
        if len(rows) > AT_ONCE:
            self._replaced = True
            return None
        if rows:
            self._last = rows[-1]
            self._count(rows)
        else:
            self._last = last
        return [self._key(row) for row in rows]

    def renew(self) -> None:
        """Have the next comparison begin anew, and find that everything has changed."""
        self._replaced = True

    def compare(self) -> Region | None:
        """Return where rows have come or gone beside those that `appended` told, None if nowhere.

        At first that is everywhere.
        """
        began = time.monotonic()
        first = self._counts is None or self._replaced
        if first:
            self._replaced = False
            # The end before the counts: what comes between the two is looked at once more.
            self._last = self._read_last()
            self._choose_ranges()
        counts = self._read_counts()
        before, self._counts = self._counts or {}, counts
        self.compared = time.monotonic()
        self.seconds = self.compared - began
        if first:
            return EVERYTHING
        numbers = [n for n in sorted({*before, *counts}) if before.get(n) != counts.get(n)]
        self._merge()
        if not numbers:
            return None
        return self._region(numbers)

    @property
    def _names(self) -> list[str]:
        return [attribute.name for attribute in self._attributes()]

    def _attributes(self) -> list[Attribute]:
        heading = self._heading()
        return [heading[name] for name in heading.primary_key]

    def _heading(self) -> Any:
        stored = self._connection.catalog.find(self._name)
        if stored is None:
            raise LookupError(f"the table {self._name} is gone")
        return stored.heading

    def _lowered(self) -> tuple[Any, list[Any]]:
        lowered = Lowering(self._connection.backend).lower(all_rows(self._name, self._heading()))
        columns = [lowered.columns[name] for name in self._names]
        return lowered.source, columns

    def _columns(self) -> tuple[Any, list[Any], list[Any]]:
        """Return the source, what rows are ordered by, and all that is read of each."""
        source, keys = self._lowered()
        if self._by_row:
            row = sa.literal_column("_rowid_")
            return source, [row], [row, *keys]
        return source, keys, keys

    def _read_last(self) -> tuple[Any, ...] | None:
        source, order, columns = self._columns()
        if not columns:
            return None
        select = sa.select(*columns).select_from(source)
        select = select.order_by(*[column.desc() for column in order]).limit(1)
        rows = self._connection.rows(select)
        return tuple(rows[0]) if rows else None

    def _changed(self, last: tuple[Any, ...]) -> bool:
        source, order, columns = self._columns()
        select = sa.select(*columns).select_from(source).where(order[0] == last[0])
        return [tuple(row) for row in self._connection.rows(select)] != [last]

    def _after(self, last: tuple[Any, ...] | None) -> list[tuple[Any, ...]]:
        source, order, columns = self._columns()
        select = sa.select(*columns).select_from(source).order_by(*order).limit(AT_ONCE + 1)
        if last is not None:
            select = select.where(beyond(self._connection.backend.name, order, last))
        return [tuple(row) for row in self._connection.rows(select)]

    def _key(self, row: Sequence[Any]) -> Key:
        values = row[1:] if self._by_row else row
        decoders = [
            self._connection.backend.decoder(attribute.type) if attribute.type else None
            for attribute in self._attributes()
        ]
        decoded = [d(v) if d else v for v, d in zip(values, decoders, strict=True)]
        return dict(zip(self._names, decoded, strict=True))

    def _first_is_integer(self) -> bool:
        attributes = self._attributes()
        return bool(attributes) and _is_integer(attributes[0])

    def _choose_ranges(self) -> None:
        self._start, self._width = 0, 0
        if not self._first_is_integer():
            return
        source, keys = self._lowered()
        select = sa.select(sa.func.min(keys[0]), sa.func.max(keys[0])).select_from(source)
        ((low, high),) = self._connection.rows(select)
        low, high = int(low or 0), int(high or 0)
        self._start, self._width = low, (high - low) // RANGES + 1

    def _read_counts(self) -> Counts:
        source, keys = self._lowered()
        number: Any = sa.literal_column("0")
        if self._width:
            division = "/" if self._by_row else "DIV"
            # Numbers as they are, for what is grouped by must read as what is selected.
            start, width = sa.literal_column(str(self._start)), sa.literal_column(str(self._width))
            number = (keys[0] - start).self_group().op(division)(width)
        sums = [sa.func.sum(column) for column in self._summed(keys)]
        select = sa.select(number, sa.func.count(), *sums).select_from(source)
        select = select.group_by(number) if self._width else select
        rows = self._connection.rows(select)
        return {int(row[0]): tuple(int(value or 0) for value in row[1:]) for row in rows}

    def _summed(self, keys: Sequence[Any]) -> list[Any]:
        if self._by_row:
            return [sa.literal_column("_rowid_")]
        pairs = zip(keys, self._attributes(), strict=True)
        return [column for column, attribute in pairs if _is_integer(attribute)]

    def _count(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take new rows into the counts, as if they had been counted."""
        counts = self._counts if self._counts is not None else {}
        integers = [n for n, attribute in enumerate(self._attributes()) if _is_integer(attribute)]
        for row in rows:
            values = [row[0]] if self._by_row else [int(row[n]) for n in integers]
            keys = row[1:] if self._by_row else row
            number = _quotient(int(keys[0]) - self._start, self._width) if self._width else 0
            old = counts.get(number, (0,) * (1 + len(values)))
            counts[number] = tuple(a + b for a, b in zip(old, (1, *values), strict=True))

    def _merge(self) -> None:
        counts = self._counts or {}
        if not self._width or len(counts) <= MOST_RANGES:
            return
        merged: Counts = {}
        for number, values in counts.items():
            wider = _quotient(number, MERGED)
            old = merged.get(wider, (0,) * len(values))
            merged[wider] = tuple(a + b for a, b in zip(old, values, strict=True))
        self._width *= MERGED
        self._counts = merged

    def _region(self, numbers: Sequence[int]) -> Region:
        if not self._width:
            return EVERYTHING
        return Region(name=self._names[0], ranges=tuple(map(self._range, numbers)))

    def _range(self, number: int) -> tuple[int, int]:
        start, width = self._start, self._width
        # Division is towards zero, whose range reaches to both sides.
        low = start + (number if number > 0 else number - 1) * width + (number <= 0)
        high = start + (number if number < 0 else number + 1) * width - (number >= 0)
        return low, high


def _is_integer(attribute: Attribute) -> bool:
    return attribute.type is not None and attribute.type.family is Family.INTEGER


def _quotient(number: int, divisor: int) -> int:
    return -(-number // divisor) if number < 0 else number // divisor
