"""The catalogue of a MySQL or MariaDB server's tables, read from information_schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.heading import Default, IndexDeclaration
from dj_dagster.model.names import TableName
from dj_dagster.model.scanner import unquote
from dj_dagster.relational.backends.common import Reference, Rows, grouped, raw_table, unquoted_name
from dj_dagster.relational.stored import RawTable, StoredColumn

_TABLES = """
SELECT table_name, IF(table_type = 'VIEW', '', table_comment), table_type = 'VIEW'
FROM information_schema.tables
WHERE table_schema = %s AND table_type IN ('BASE TABLE', 'VIEW')
ORDER BY create_time, CAST(UPPER(table_name) AS BINARY)
"""
_SIZE = """
SELECT data_length + index_length FROM information_schema.tables
WHERE table_schema = %s AND table_name = %s
"""
_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, column_comment, extra
FROM information_schema.columns WHERE table_schema = %s ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name, constraint_name, column_name, referenced_table_schema, referenced_table_name,
       referenced_column_name
FROM information_schema.key_column_usage WHERE table_schema = %s
ORDER BY table_name, constraint_name, ordinal_position
"""
_INDEXES = """
SELECT table_name, index_name, non_unique, column_name, sub_part, {}
FROM information_schema.statistics
WHERE table_schema = %s AND (%s IS NULL OR table_name = %s) AND index_name <> 'PRIMARY'
ORDER BY table_name, index_name, seq_in_index
"""
_CONSTRAINTS = """
SELECT constraint_name, column_name, referenced_table_schema, referenced_table_name
FROM information_schema.key_column_usage
WHERE table_schema = %s AND table_name = %s AND referenced_table_name IS NOT NULL
ORDER BY constraint_name, ordinal_position
"""
_VIEW = """
SELECT view_definition FROM information_schema.views WHERE table_schema = %s AND table_name = %s
"""
_EXISTS = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
_SELECTED = re.compile(r"\b(?:from|join)\s+\(*(`(?:[^`]|``)+`)\.(`(?:[^`]|``)+`)", re.IGNORECASE)
_NOW = re.compile(r"(?:current_timestamp|now)(?:\(([0-9]*)\))?", re.IGNORECASE)
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_ESCAPED = re.compile(r"\\U([0-9a-f]{8})")
_EDGES = """
SELECT DISTINCT table_schema, referenced_table_schema FROM information_schema.key_column_usage
WHERE referenced_table_schema IS NOT NULL
"""


def tables(connection: SAConnection, schema: str) -> list[RawTable]:
    """Return all tables and views of a database, by three statements."""
    # Tables are read first; otherwise a table declared meanwhile would lack its columns.
    tables = connection.exec_driver_sql(_TABLES, (schema,)).fetchall()
    columns = grouped(connection.exec_driver_sql(_COLUMNS, (schema,)))
    keys = grouped(connection.exec_driver_sql(_KEYS, (schema,)))
    return [
        replace(
            _raw_table(TableName(schema, name), _unescaped(comment), columns[name], keys[name]),
            is_view=bool(is_view),
        )
        for name, comment, is_view in tables
        if name in columns
    ]


def tables_behind(connection: SAConnection, view: TableName) -> set[TableName]:
    """Return the tables that a view selects from, also through other views; a table itself.

    The result is empty if the user may not see the text of one of the views, or one of the tables.
    """
    found, met, waiting = set[TableName](), {view}, [view]
    while waiting:
        name = waiting.pop()
        text = connection.exec_driver_sql(_VIEW, tuple(name)).scalar()
        if text is None:
            if name != view and connection.exec_driver_sql(_EXISTS, tuple(name)).first() is None:
                return set()
            found.add(name)
            continue
        # The server writes each table with its schema.
        tables = {TableName(*map(unquoted_name, match)) for match in _SELECTED.findall(text)}
        if not tables:
            return set()
        waiting += tables - met
        met |= tables
    return found


def escaped(text: str) -> str:
    r"""Return a text without characters of four bytes, which servers turn into question marks.

    >>> escaped("face \N{GRINNING FACE}")
    'face \\U0001f600'
    """
    return _BEYOND.sub(lambda match: f"\\U{ord(match[0]):08x}", text)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def indexes(
    connection: SAConnection, schema: str, table: str | None = None
) -> dict[str, dict[str, IndexDeclaration]]:
    """Return the indexes by table and name; only MySQL has indexes of expressions."""
    maria = getattr(connection.dialect, "is_mariadb", False)
    query = _INDEXES.format("NULL" if maria else "expression")
    rows = grouped(connection.exec_driver_sql(query, (schema, table, table)))
    return {
        name: {index: _index(parts) for index, parts in grouped(found).items()}
        for name, found in rows.items()
    }


def foreign_key_names(
    connection: SAConnection, name: TableName
) -> dict[tuple[TableName, tuple[str, ...]], str]:
    """Return the names of a table's foreign keys by parent and columns."""
    rows = grouped(connection.exec_driver_sql(_CONSTRAINTS, tuple(name)))
    return {
        (TableName(*columns[0][1:]), tuple(column for column, *_ in columns)): constraint
        for constraint, columns in rows.items()
    }


def schema_edges(connection: SAConnection) -> set[tuple[str, str]]:
    """Return ``(child, parent)`` of databases for all foreign keys that the user can see."""
    return {(child, parent) for child, parent in connection.exec_driver_sql(_EDGES)}


def _raw_table(name: TableName, comment: str, columns: Rows, keys: Rows) -> RawTable:
    stored = [
        StoredColumn(
            column,
            kind,
            nullable == "YES",
            _default(default),
            _unescaped(text or ""),
            "auto_increment" in extra.lower(),
        )
        for column, kind, nullable, default, text, extra in columns
    ]
    constraints = grouped(keys)
    key = [column for column, *_ in constraints.pop("PRIMARY", [])]
    references: list[Reference] = []
    unique: list[tuple[str, ...]] = []
    # Numbered names in the order of their numbers: ibfk_2 before ibfk_10.
    for constraint in sorted(constraints, key=lambda given: (len(given), given)):
        rows = constraints[constraint]
        _, schema, table, _ = rows[0]
        if table is None:
            unique.append(tuple(column for column, *_ in rows))
        else:
            attributes = {column: parent for column, _, _, parent in rows}
            references.append((TableName(schema, table), attributes))
    return raw_table(name, comment, stored, key, references, unique)


def size_on_disk(connection: SAConnection, names: Sequence[TableName]) -> int:
    """Return the size in bytes of tables and their indexes, as the server last counted it."""
    found = (connection.exec_driver_sql(_SIZE, tuple(name)).scalar() for name in names)
    return sum(int(size or 0) for size in found)


def _index(rows: Rows) -> IndexDeclaration:
    parts = [
        # The server escapes quotes in an expression with backslashes.
        f"({expression})".replace("\\'", "'")
        if expression
        else f"{column}({size})"
        if size
        else column
        for _, column, size, expression in rows
    ]
    return IndexDeclaration(tuple(parts), unique=not rows[0][0])


def _default(text: str | None) -> Default | None:
    """Read a default as MariaDB reports it, as SQL; MySQL reports texts without their quotes."""
    if text is None or text.upper() == "NULL":
        return None
    if now := _NOW.fullmatch(text):
        return Default(f"CURRENT_TIMESTAMP({now[1]})" if now[1] else "CURRENT_TIMESTAMP", True)
    if len(text) > 1 and text.startswith("'") and text.endswith("'"):
        return Default(unquote(text))
    return Default(text)
