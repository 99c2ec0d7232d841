"""Statements with the values in their text: INSERT of many rows, and dumps bit for bit.

The files can be loaded by this module, and by the server's own client in the order of their names:
``zcat database/*.sql.gz | mysql --binary-mode``. A comment before each statement states its length.
The rows are read by this module's own queries, in the snapshot in which references are read too;
``mysqldump`` is not available everywhere, and opens a snapshot of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import sqlalchemy as sa
from isal import igzip
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from dj_dagster.errors import ChecksumError
from dj_dagster.model.heading import Value, Values
from dj_dagster.model.names import TableName
from dj_dagster.model.types import quote
from dj_dagster.relational.backends import common
from dj_dagster.relational.backends.common import Select
from dj_dagster.relational.database.sessions import run_sql
from dj_dagster.relational.stored import DEFAULT, DumpedTable, InsertMode, InsertStatement

STATEMENT_BYTES = 1_000_000
"""Bytes after which a statement ends; every server takes at least a mebibyte by default."""


def many_rows(
    name: TableName,
    columns: tuple[str, ...],
    values: Sequence[Sequence[Value]],
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


def _row_texts(values: Sequence[Sequence[Value]], count: int) -> list[bytes]:
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


def _literals(column: Sequence[Value], kinds: set[type]) -> list[str]:
    if kinds == {int}:
        return list(map(str, column))
    if kinds == {float}:
        return list(map(repr, column))
    if kinds == {str}:
        text = "".join(column)
        if "'" not in text and "\\" not in text:
            return [f"'{value}'" for value in column]
    return [_LITERALS[type(value)](value) for value in column]


def _datetime(value: datetime) -> str:
    return f"'{common.datetime_text(value, 6)}'" if value.microsecond else f"'{value}'"


_LITERALS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "NULL",
    type(DEFAULT): lambda value: "DEFAULT",
    bool: lambda value: "1" if value else "0",
    int: str,
    float: repr,
    Decimal: lambda value: f"{value:f}",
    str: quote,
    date: lambda value: f"'{value.isoformat()}'",
    datetime: _datetime,
    time: lambda value: f"'{value.isoformat()}'",
    timedelta: lambda value: f"'{value}'",
}


def _bytes_literal(value: Value) -> bytes:
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
def _compile_replace(statement: _Replace, compiler: SQLCompiler, **options: object) -> str:
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
    select: Select,
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


IDENTITY = "~identity"
RESTORING = "~restoring"
"""A table that a schema has while it is restored."""

_SCHEMAS, _VIEWS = "00000-schemas.sql.gz", "99999-views.sql.gz"
_SETTINGS = (
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION sql_quote_show_create = 1",
    "SET SESSION foreign_key_checks = 0",
    "SET SESSION unique_checks = 0",
)
_AS_BYTES = "SET NAMES binary"
"""Keeps the server from converting text."""

_TABLES = """
SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = %s
AND table_type IN ('BASE TABLE', 'VIEW') ORDER BY table_name
"""
_COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = %s AND table_name = %s AND coalesce(generation_expression, '') = ''
ORDER BY ordinal_position
"""
_KEY = """
SELECT column_name FROM information_schema.statistics
WHERE table_schema = %s AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index
"""
_PLAIN = {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"}
_BYTES = re.compile(r".*blob|(var)?binary|bit|geom.*|(multi)?(point|polygon|linestring)")
_DEFINER = re.compile(r" DEFINER=`(?:[^`]|``)*`@`(?:[^`]|``)*`")
_BUFFERED_ROWS = 50

Literal = Callable[[bytes], bytes]


def dump(session: SAConnection, folder: Path, schemas: Sequence[str]) -> list[DumpedTable]:
    """Write the tables of some schemas, as the session's open snapshot shows them.

    The session is closed afterwards.
    """
    _begin(session)
    session.exec_driver_sql("SET SESSION net_write_timeout = 3600")
    with _opened(folder / _SCHEMAS, "wb") as stream:
        for schema in schemas:
            create = f"SHOW CREATE DATABASE IF NOT EXISTS {_quoted(schema)}"
            _write(stream, _row(session, create)[1])
    found: list[DumpedTable] = []
    views: list[tuple[str, str]] = []
    for schema in schemas:
        for table, kind in session.exec_driver_sql(_TABLES, (schema,)).fetchall():
            if kind == "VIEW":
                views.append((schema, table))
            elif table not in (IDENTITY, RESTORING):
                # Lets others alter the table from then on.
                session.exec_driver_sql("SAVEPOINT dumped")
                file = f"{len(found) + 1:05}.sql.gz"
                found.append(_dump_table(session, folder / file, TableName(schema, table)))
                session.exec_driver_sql("ROLLBACK TO SAVEPOINT dumped")
    _set(session, "SET NAMES utf8mb4")
    with _opened(folder / _VIEWS, "wb") as stream:
        for schema, view in views:
            text = _row(session, f"SHOW CREATE VIEW {_quoted(schema)}.{_quoted(view)}")[1]
            _write(stream, f"USE {quoted_name(schema)}")
            _write(stream, _DEFINER.sub("", text))
    return found


def load(
    session: SAConnection, folder: Path, schemas: Sequence[str], tables: Sequence[DumpedTable]
) -> None:
    """Create and fill the tables of a dump, in schemas without tables.

    Raises
    ------
    ChecksumError
        If a table's rows differ from the dump.
    """
    _begin(session)
    for statement in _statements(folder / _SCHEMAS):
        run_sql(session, statement, None)
    for schema in schemas:
        if RESTORING in _names(session, schema):
            _clear(session, schema)
        marker = f"{_quoted(schema)}.`{RESTORING}`"
        session.exec_driver_sql(f"CREATE TABLE {marker} (one int PRIMARY KEY)")
    for table in tables:
        for statement in _statements(folder / table.file):
            run_sql(session, statement, None)
    _set(session, "SET NAMES utf8mb4")
    _load_views(session, list(_statements(folder / _VIEWS)))
    for table in tables:
        _verify(session, table)
    for schema in schemas:
        session.exec_driver_sql(f"DROP TABLE {_quoted(schema)}.`{RESTORING}`")


def occupied(session: SAConnection, schemas: Sequence[str]) -> list[str]:
    """Return the tables of some schemas, without the remains of a killed `load`."""
    found: list[str] = []
    for schema in schemas:
        names = _names(session, schema)
        if RESTORING not in names:
            found += [f"{schema}.{name}" for name in names if name != IDENTITY]
    return found


def _dump_table(session: SAConnection, file: Path, name: TableName) -> DumpedTable:
    _set(session, "SET NAMES utf8mb4")
    create = _row(session, f"SHOW CREATE TABLE {_quoted(name.schema)}.{_quoted(name.table)}")[1]
    rows, digest = 0, hashlib.sha256()
    with _opened(file, "wb") as stream:
        for statement in (*_SETTINGS, f"USE {quoted_name(name.schema)}", create, _AS_BYTES):
            _write(stream, statement)
        _write(stream, "START TRANSACTION")
        for statement, count in _inserts(session, name):
            _write(stream, statement)
            digest.update(statement)
            rows += count
        _write(stream, "COMMIT")
    return DumpedTable(name.schema, name.table, file.name, rows, digest.hexdigest())


def _verify(session: SAConnection, table: DumpedTable) -> None:
    digest = hashlib.sha256()
    rows = 0
    for statement, count in _inserts(session, TableName(table.schema, table.table)):
        digest.update(statement)
        rows += count
    if digest.hexdigest() != table.sha256:
        raise ChecksumError(
            f"{table.schema}.{table.table} has not come back as it was: {table.rows} rows were "
            f"dumped, and {rows} are there, or some have other values. Restore on a server of the "
            "version that the backup was made on."
        )


def _inserts(session: SAConnection, name: TableName) -> Iterator[tuple[bytes, int]]:
    """Yield the statements that insert a table's rows, each with the number of its rows."""
    columns = session.exec_driver_sql(_COLUMNS, tuple(name)).fetchall()
    key = session.exec_driver_sql(_KEY, tuple(name)).scalars().all()
    _set(session, _AS_BYTES)
    names = ", ".join(quoted_name(column) for column, _ in columns)
    head = f"INSERT INTO {quoted_name(name.table)} ({names}) VALUES (".encode()
    literals = [_literal(kind) for _, kind in columns]
    chosen = ", ".join(_selected(column, kind) for column, kind in columns)
    query = f"SELECT {chosen} FROM {_quoted(name.schema)}.{_quoted(name.table)}"
    if key:
        query += f" ORDER BY {', '.join(map(_quoted, key))}"
    options = {"stream_results": True, "max_row_buffer": _BUFFERED_ROWS}
    parts: list[bytes] = []
    size = 0
    for row in session.exec_driver_sql(query, execution_options=options):
        values = zip(literals, row, strict=True)
        text = b",".join([b"NULL" if v is None else make(v) for make, v in values])
        if parts and size + len(text) > STATEMENT_BYTES:
            yield head + b"),(".join(parts) + b")", len(parts)
            parts, size = [], 0
        parts.append(text)
        size += len(text) + 3
    if parts:
        yield head + b"),(".join(parts) + b")", len(parts)
    _set(session, "SET NAMES utf8mb4")


def _selected(column: str, kind: str) -> str:
    """Return the SQL that selects a column's values as bytes without loss."""
    name = _quoted(column)
    if kind == "float":
        # The server would print only six digits; with a sum, -0 would lose its sign.
        return f"CAST({name} - 0e0 AS BINARY)"
    if kind == "json":
        return f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)"
    return name if _BYTES.fullmatch(kind) else f"CAST({name} AS BINARY)"


def _literal(kind: str) -> Literal:
    """Return the function that writes a value as SQL."""
    if kind in _PLAIN:
        return bytes
    introducer = b"_utf8mb4'" if kind == "json" else b"_binary'"

    def written(value: bytes) -> bytes:
        return introducer + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"

    return written


def _load_views(session: SAConnection, statements: Sequence[bytes]) -> None:
    """Create views, those first that others read."""
    waiting = list(zip(statements[::2], statements[1::2], strict=True))
    while waiting:
        left: list[tuple[bytes, bytes]] = []
        for use, create in waiting:
            run_sql(session, use, None)
            try:
                run_sql(session, create, None)
            except DBAPIError:
                if len(waiting) == 1:
                    raise
                left.append((use, create))
        if len(left) == len(waiting):
            run_sql(session, left[0][0], None)
            run_sql(session, left[0][1], None)
        waiting = left


def _clear(session: SAConnection, schema: str) -> None:
    """Drop the remains of a killed `load`, its mark last."""
    kinds = session.exec_driver_sql(_TABLES, (schema,)).fetchall()
    for name, kind in sorted(kinds, key=lambda found: found[0] == RESTORING):
        what = "VIEW" if kind == "VIEW" else "TABLE"
        if name != IDENTITY:
            session.exec_driver_sql(f"DROP {what} {_quoted(schema)}.{_quoted(name)}")


def _names(session: SAConnection, schema: str) -> list[str]:
    return [name for name, _ in session.exec_driver_sql(_TABLES, (schema,))]


def _row(session: SAConnection, statement: str) -> Values:
    return tuple(session.exec_driver_sql(statement).one())


def _begin(session: SAConnection) -> None:
    """Change the settings of a session that is closed afterwards."""
    session.detach()
    _set(session, *_SETTINGS)


def _set(session: SAConnection, *statements: str) -> None:
    for statement in statements:
        session.exec_driver_sql(statement)


def _quoted(name: str) -> str:
    """Return an identifier for SQL in which the driver looks for placeholders."""
    return quoted_name(name).replace("%", "%%")


def _opened(file: Path, mode: str) -> IO[bytes]:
    return cast(IO[bytes], igzip.open(file, mode, compresslevel=1))


def _write(stream: IO[bytes], statement: str | bytes) -> None:
    text = statement.encode() if isinstance(statement, str) else statement
    stream.write(b"-- %d\n%b;\n" % (len(text), text))


def _statements(file: Path) -> Iterator[bytes]:
    with _opened(file, "rb") as stream:
        while line := stream.readline():
            yield stream.read(int(line.removeprefix(b"-- ")))
            stream.read(2)
