"""What SQLite holds: its own pragmas, and a catalog table for what it cannot keep.

Column and table comments, which carry the attribute types, are rows of the table ``~catalog``, and
so are the schemas, with empty names. The table ``~identity`` tells the file from others.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import DataJointError, QueryError
from dj_dagster.model.declaration import Default, IndexDeclaration
from dj_dagster.model.names import TableName
from dj_dagster.model.scanner import SourceLine
from dj_dagster.relational.backends.reported import Reference, Rows, grouped, raw_table
from dj_dagster.relational.stored import RawTable, StoredColumn

_CATALOG = sa.table(
    "~catalog",
    sa.column("schema_name"),
    sa.column("table_name"),
    sa.column("column_name"),
    sa.column("comment"),
)
_SIZE = """
SELECT sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = ?)
"""
_CREATE_CATALOG = """
CREATE TABLE IF NOT EXISTS "~catalog" (
    schema_name TEXT NOT NULL, table_name TEXT NOT NULL, column_name TEXT NOT NULL,
    comment TEXT NOT NULL, PRIMARY KEY (schema_name, table_name, column_name))
"""
_CREATE_IDENTITY = """
CREATE TABLE IF NOT EXISTS "~identity" (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL)
"""
_COLUMNS = """
SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk, m.sql
FROM sqlite_master m JOIN pragma_table_info(m.name) c
WHERE m.type = 'table' AND m.name > ? AND m.name < ? ORDER BY m.rowid, c.cid
"""
_VIEWS = """
SELECT name, sql FROM sqlite_master WHERE type = 'view' AND name > ? AND name < ? ORDER BY rowid
"""
_FOREIGN_KEYS = """
SELECT m.name, f.id, f."table", f."from", f."to"
FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
WHERE m.type = 'table' AND m.name > ? AND m.name < ? ORDER BY m.rowid, f.id DESC, f.seq
"""
_UNIQUE = """
SELECT m.name, i.name, c.name
FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c
WHERE m.type = 'table' AND m.name > ? AND m.name < ? AND i."unique" AND i.origin <> 'pk'
ORDER BY m.rowid, i.seq, c.seqno
"""
_INDEXES = """
SELECT m.name, i.name, i."unique", c.name, s.sql
FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_xinfo(i.name) c
LEFT JOIN sqlite_master s ON s.type = 'index' AND s.name = i.name
WHERE m.type = 'table' AND m.name >= ? AND m.name <= ? AND i.origin <> 'pk' AND c.key
ORDER BY m.rowid, s.rowid, c.seqno
"""
_NOW = re.compile(r"current_timestamp|substr\(strftime\(.*, ([0-9]+)\)", re.IGNORECASE)
_EDGES = """
SELECT DISTINCT m.name, f."table"
FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
"""


def schema_names(connection: SAConnection) -> list[str]:
    """Return the schemas, sorted."""
    if not _exists(connection):
        return []
    query = sa.select(_CATALOG.c.schema_name).distinct().order_by(_CATALOG.c.schema_name)
    return list(connection.execute(query).scalars())


def add_schema(connection: SAConnection, schema: str) -> None:
    """Note a schema.

    Raises
    ------
    DataJointError
        If another schema differs in case only.
    """
    connection.exec_driver_sql(_CREATE_CATALOG)
    for other in schema_names(connection):
        if other != schema and other.lower() == schema.lower():
            raise DataJointError(
                f"The schema {schema!r} differs from {other!r} in upper and lower case only, "
                "which SQLite does not tell apart: choose another name."
            )
    _insert(connection, [(schema, "", "", "")])
    identity(connection, create=True)


def identity(connection: SAConnection, *, create: bool) -> str | None:
    """Return a random text of the file with the number that the file has on its disk."""
    if not _exists(connection, "~identity"):
        if not create:
            return None
        connection.exec_driver_sql(_CREATE_IDENTITY)
    if create:
        # The row that came first stays, whoever adds one.
        statement = 'INSERT OR IGNORE INTO "~identity" VALUES (1, ?)'
        connection.exec_driver_sql(statement, (uuid.uuid4().hex,))
    found = connection.exec_driver_sql('SELECT id FROM "~identity"').scalar()
    if found is None:
        return None
    file = next(row[2] for row in connection.exec_driver_sql("PRAGMA database_list"))
    return f"{found}-{Path(file).stat().st_ino:x}" if file else str(found)


def remove_schema(connection: SAConnection, schema: str) -> None:
    """Forget a schema with its comments."""
    connection.execute(sa.delete(_CATALOG).where(_CATALOG.c.schema_name == schema))


def add_comments(connection: SAConnection, name: TableName, comments: Mapping[str, str]) -> None:
    """Keep comments by column, under ``""`` that of the table."""
    _insert(connection, [(*name, column, text) for column, text in comments.items()])


def remove_comments(connection: SAConnection, name: TableName) -> None:
    """Forget the comments of a table; those of its schema stay."""
    columns = _CATALOG.c
    of_table = (columns.schema_name == name.schema) & (columns.table_name == name.table)
    connection.execute(sa.delete(_CATALOG).where(of_table))


def table_names(connection: SAConnection, schema: str) -> list[str]:
    """Return the names of a schema's tables in SQL."""
    names = [row[0] for row in connection.exec_driver_sql(_COLUMNS, _span(schema))]
    return list(dict.fromkeys(names))


def views(connection: SAConnection, schema: str) -> list[tuple[str, str]]:
    """Return the names of a schema's views in SQL, each with the statement that made it."""
    found = connection.exec_driver_sql(_VIEWS, _span(schema))
    return [(name, sql) for name, sql in found]


def tables(connection: SAConnection, schema: str) -> list[RawTable]:
    """Return what is known of a schema's tables, in four statements."""
    if not _exists(connection):
        return []
    span = _span(schema)
    # The tables come first: of one that is declared meanwhile the comments would be missing.
    columns = grouped(connection.exec_driver_sql(_COLUMNS, span))
    query = sa.select(_CATALOG.c.table_name, _CATALOG.c.column_name, _CATALOG.c.comment)
    rows = connection.execute(query.where(_CATALOG.c.schema_name == schema))
    comments = {(table, column): comment for table, column, comment in rows}
    foreign_keys = grouped(connection.exec_driver_sql(_FOREIGN_KEYS, span))
    unique = grouped(connection.exec_driver_sql(_UNIQUE, span))
    return [
        _table(_name(name), rows, foreign_keys[name], unique[name], comments)
        for name, rows in columns.items()
    ]


def indexes(
    connection: SAConnection, schema: str, table: str | None = None
) -> dict[str, dict[str, IndexDeclaration]]:
    """Return the indexes of a schema's tables, or of one, by table and then by their name."""
    found: dict[str, dict[str, IndexDeclaration]] = {}
    span = (f"{schema}.{table}",) * 2 if table else _span(schema)
    for name, rows in grouped(connection.exec_driver_sql(_INDEXES, span)).items():
        found[_name(name).table] = {
            index: _index(columns) for index, columns in grouped(rows).items()
        }
    return found


def schema_edges(connection: SAConnection) -> set[tuple[str, str]]:
    """Return ``(child schema, parent schema)`` of all foreign keys."""
    edges = connection.exec_driver_sql(_EDGES)
    return {(_name(child).schema, _name(parent).schema) for child, parent in edges}


def size_on_disk(connection: SAConnection, names: Sequence[TableName]) -> int:
    """Return the bytes of the pages that tables and their indexes take.

    Raises
    ------
    QueryError
        If SQLite was built without the means.
    """
    options = connection.exec_driver_sql("PRAGMA compile_options").scalars()
    if "ENABLE_DBSTAT_VTAB" not in options:
        raise QueryError(
            "This SQLite was built without dbstat, which tells the sizes of tables: look at the "
            "size of its file."
        )
    sizes = (connection.exec_driver_sql(_SIZE, (str(name),)).scalar() for name in names)
    return sum(size or 0 for size in sizes)


def _table(
    name: TableName,
    columns: Rows,
    foreign_keys: Rows,
    unique: Rows,
    comments: Mapping[tuple[str, str], str],
) -> RawTable:
    stored = [
        StoredColumn(
            column,
            kind,
            not notnull,
            _default(default),
            comments.get((name.table, column), ""),
            auto_increment="AUTOINCREMENT" in sql and bool(pk),
        )
        for column, kind, notnull, default, pk, sql in columns
    ]
    key = [column for _, column in sorted((pk, column) for column, *_, pk, _ in columns if pk)]
    references: list[Reference] = [
        (_name(rows[0][0]), {column: parent for _, column, parent in rows})
        for rows in grouped(foreign_keys).values()
    ]
    indexes = [tuple(column for (column,) in rows) for rows in grouped(unique).values()]
    comment = comments.get((name.table, ""), "")
    return raw_table(name, comment, stored, key, references, indexes)


def _index(rows: Rows) -> IndexDeclaration:
    unique, _, sql = rows[0]
    parts = tuple(column for _, column, _ in rows)
    if None in parts:
        # Of an expression only the statement is kept.
        line = SourceLine(sql, 0)
        opening = line.find("(")
        parts = tuple(text for _, text in line.arguments(opening, line.closing(opening)))
    return IndexDeclaration(parts, unique=bool(unique))


def _default(text: str | None) -> Default | None:
    """Read back what `SQLiteBackend.default_sql` wrote."""
    if text is None or text.upper() == "NULL":
        return None
    if now := _NOW.fullmatch(text):
        width = int(now[1] or 19)
        return Default(
            f"CURRENT_TIMESTAMP({width - 20})" if width > 20 else "CURRENT_TIMESTAMP", True
        )
    if text.startswith("'"):
        return Default(text[1:-1].replace("''", "'"))
    return Default(text)


def _exists(connection: SAConnection, table: str = "~catalog") -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.exec_driver_sql(query, (table,)).first() is not None


def _insert(connection: SAConnection, rows: Iterable[tuple[str, ...]]) -> None:
    statement = 'INSERT OR REPLACE INTO "~catalog" VALUES (?, ?, ?, ?)'
    connection.exec_driver_sql(statement, list(rows))


def _name(text: str) -> TableName:
    schema, _, table = text.partition(".")
    return TableName(schema, table)


def _span(schema: str) -> tuple[str, str]:
    """Return the bounds of the names that begin with ``schema.``; LIKE would ignore their case."""
    return f"{schema}.", f"{schema}{chr(ord('.') + 1)}"
