"""INSERT statements for MySQL; those of many rows have the values written into their text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends import common
from dj_dagster.relational.backends.base import DEFAULT, InsertMode, InsertStatement

STATEMENT_BYTES = 1_000_000
"""Bytes after which a statement ends; every server takes at least a mebibyte by default."""


def many_rows(
    name: TableName,
    columns: tuple[str, ...],
    values: Sequence[Sequence[Any]],
    count: int,
    key: tuple[str, ...],
    mode: InsertMode,
) -> Iterator[InsertStatement]:
    """Return INSERT statements, each with as many rows as one packet takes on any server.

    Text is safe in either setting of NO_BACKSLASH_ESCAPES: no value can end its string.
    """
    head, tail = _frame(name, columns, key, mode)
    for rows in _packets(_row_texts(values, count)):
        yield InsertStatement(head + b"),(".join(rows) + tail, None, len(rows))


@lru_cache(maxsize=1000)
def _frame(
    name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
) -> tuple[bytes, bytes]:
    """Return the SQL before the first value and after the last."""
    verb = "REPLACE" if mode == "replace" else "INSERT"
    table = f"{quoted_name(name.schema)}.{quoted_name(name.table)}"
    names = ", ".join(map(quoted_name, columns))
    # An update that changes nothing: INSERT IGNORE would swallow other errors too.
    first = quoted_name(key[0])
    tail = f") ON DUPLICATE KEY UPDATE {first} = {first}" if mode == "skip" else ")"
    return f"{verb} INTO {table} ({names}) VALUES (".encode(), tail.encode()


def quoted_name(name: str) -> str:
    """Return an identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def _row_texts(values: Sequence[Sequence[Any]], count: int) -> list[bytes]:
    if not values:
        return [b""] * count
    if count == 1:
        return [b",".join([_bytes_literal(column[0]) for column in values])]
    kinds = [set(map(type, column)) for column in values]
    if any(bytes in kind for kind in kinds):
        # Blobs are not decoded, which would take longer than all the rest.
        parts = [list(map(_bytes_literal, column)) for column in values]
        return list(map(b",".join, zip(*parts, strict=True)))
    texts = [_literals(column, kind) for column, kind in zip(values, kinds, strict=True)]
    joined = "\0".join(map(",".join, zip(*texts, strict=True)))
    if joined.count("\0") != count - 1:
        return [",".join(row).encode() for row in zip(*texts, strict=True)]
    return joined.encode().split(b"\0")


def _literals(column: Sequence[Any], kinds: set[type]) -> list[str]:
    if kinds == {int}:
        return list(map(str, column))
    if kinds == {float}:
        return list(map(repr, column))
    if kinds == {str}:
        text = "".join(column)
        if "'" not in text and "\\" not in text:
            return [f"'{value}'" for value in column]
    return [_LITERALS[type(value)](value) for value in column]


def _string(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _datetime(value: datetime) -> str:
    return f"'{common.datetime_text(value, 6)}'" if value.microsecond else f"'{value}'"


_LITERALS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "NULL",
    type(DEFAULT): lambda value: "DEFAULT",
    bool: lambda value: "1" if value else "0",
    int: str,
    float: repr,
    Decimal: lambda value: f"{value:f}",
    str: _string,
    date: lambda value: f"'{value.isoformat()}'",
    datetime: _datetime,
    time: lambda value: f"'{value.isoformat()}'",
    timedelta: lambda value: f"'{value}'",
}


def _bytes_literal(value: Any) -> bytes:
    if type(value) is bytes:
        # A packet states its length, so all other bytes can stay as they are.
        return b"_binary'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
    return _LITERALS[type(value)](value).encode()


def _packets(rows: list[bytes]) -> Iterator[list[bytes]]:
    if len(rows) == 1:
        yield rows
        return
    sizes = list(map(len, rows))
    if sum(sizes) + 3 * len(sizes) <= STATEMENT_BYTES:
        yield rows
        return
    start = size = 0
    for position, length in enumerate(sizes):
        if size and size + length > STATEMENT_BYTES:
            yield rows[start:position]
            start, size = position, 0
        size += length + 3
    yield rows[start:]


class _Replace(sa.Insert):
    """The statement REPLACE … SELECT."""

    inherit_cache = True


@compiles(_Replace)
def _compile_replace(statement: _Replace, compiler: Any, **options: Any) -> str:
    return compiler.visit_insert(statement, **options).replace("INSERT", "REPLACE", 1)


@lru_cache(maxsize=1000)
def one_row(
    name: TableName, columns: tuple[str, ...], key: tuple[str, ...], mode: InsertMode
) -> str:
    """Return the INSERT of one row, with placeholders."""
    given = [sa.column(column) for column in dict.fromkeys((*columns, *key))]
    table = sa.table(name.table, *given, schema=name.schema)
    statement = mysql.insert(table)
    if mode == "skip":
        statement = statement.on_duplicate_key_update({key[0]: table.c[key[0]]})
    dialect = mysql.dialect(paramstyle="format")
    sql = str(statement.compile(dialect=dialect, column_keys=list(columns)))
    return sql.replace("INSERT", "REPLACE", 1) if mode == "replace" else sql


def from_select(
    target: sa.TableClause,
    names: Sequence[str],
    select: sa.Select[Any],
    key: tuple[str, ...],
    mode: InsertMode,
) -> sa.Executable:
    """Return INSERT … SELECT; it skips by an update that changes nothing."""
    statement = mysql.insert(target).from_select(names, select)
    if mode == "skip":
        return statement.on_duplicate_key_update({key[0]: target.c[key[0]]})
    if mode == "replace":
        return _Replace(target).from_select(names, select)
    return statement
