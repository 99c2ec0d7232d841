"""Which row of many the database has refused, looked for once it has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dj_dagster.errors import DataJointError, DuplicateError
from dj_dagster.model.names import TableName
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.database.write_buffer import EncodedRows

Values = tuple[Any, ...]

_FAILED = re.compile(r"UNIQUE constraint failed: (.+)")


def refused_row(
    connection: Connection, rows: EncodedRows, error: DataJointError, tried: range, *, whole: bool
) -> int | None:
    """Return the position of a row that was refused, None where it cannot be told.

    Parameters
    ----------
    error
        A `DuplicateError` or an `IntegrityError`.
    tried
        The rows of the statement that failed; those before them are written.
    whole
        Whether nothing of that statement was written.
    """
    found: int | None = None
    with contextlib.suppress(DataJointError):
        if isinstance(error, DuplicateError):
            found = next(_doubles(connection, rows, error, tried, whole), None)
        else:
            found = next(_orphans(connection, rows, tried), None)
    return found


def _doubles(
    connection: Connection, rows: EncodedRows, error: DataJointError, tried: range, whole: bool
) -> Iterator[int]:
    raw = connection.catalog.raw(rows.table)
    failed = _FAILED.search(str(error))
    told = {text.rpartition(".")[2] for text in failed[1].split(", ")} if failed else None
    for names in (rows.key, *(raw.unique if raw else ())):
        if told is not None and told != set(names):
            continue
        given = _given(rows, names, tried)
        seen: set[Values] = set()
        for row, values in given.items():
            if _plain(values) in seen:
                yield row
            seen.add(_plain(values))
        there = _there(connection, rows.table, names, given)
        if whole:
            yield from (row for row, values in given.items() if _plain(values) in there)
            continue
        if told is None:
            continue
        # SQLite has written the rows one by one up to the refused one, which is there as well.
        last = None
        for row, values in given.items():
            if _plain(values) not in there:
                break
            last = row
        if last is not None:
            yield last


def _orphans(connection: Connection, rows: EncodedRows, tried: range) -> Iterator[int]:
    stored = connection.catalog.find(rows.table)
    for foreign_key in stored.foreign_keys if stored else ():
        given = _given(rows, tuple(foreign_key.attributes), tried)
        parents = tuple(foreign_key.attributes.values())
        there = _there(connection, foreign_key.parent, parents, given)
        yield from (row for row, values in given.items() if _plain(values) not in there)


def _given(rows: EncodedRows, names: Sequence[str], tried: range) -> dict[int, Values]:
    """Return the values of some columns by row; rows with nulls are left out."""
    columns = dict(zip(rows.columns, rows.values, strict=True))
    if not names or not columns.keys() >= set(names):
        return {}
    given = {row: tuple(columns[name][row] for name in names) for row in tried}
    return {row: values for row, values in given.items() if None not in values}


def _there(
    connection: Connection, table: TableName, names: Sequence[str], given: dict[int, Values]
) -> set[Values]:
    if not given:
        return set()
    columns = [sa.column(name) for name in names]
    source = connection.backend.sql_table(table, *columns)
    wanted = [source.c[name] for name in names]
    select = sa.select(*wanted).where(
        connection.backend.is_among(wanted, list(dict.fromkeys(given.values())))
    )
    return {_plain(row) for row in connection.rows(select)}


def _plain(values: Sequence[Any]) -> Values:
    """Return values as they can be compared, whatever type the driver gives them."""
    return tuple(str(value).casefold() for value in values)
