"""The file of a SQLite database: its catalogue, marks of writes, dumps, and rebuilt tables.

Column and table comments, which carry the attribute types, are rows of the table ``~catalog``, and
so are the schemas, with empty names. The table ``~identity`` distinguishes the file from others.

SQLite counts the commits of others for every connection that stays open. The count shows that the
file was written, but not which table. Tables are rebuilt by the steps that SQLite's documentation
of ALTER TABLE recommends.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError

from dj_dagster.definition import SourceLine
from dj_dagster.errors import ConnectionFailedError, DataJointError, QueryError
from dj_dagster.local_files import make_folder
from dj_dagster.model.heading import Default, IndexDeclaration, Values
from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.common import Reference, Reported, grouped, raw_table
from dj_dagster.relational.stored import RawTable, Read, Remaking, StoredColumn, WriteMarks

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr

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
_TRIGGERS = """
SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY rowid
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


def make_place(file: Path) -> None:
    """Make the folder of a database.

    Raises
    ------
    ConnectionFailedError
        If it cannot be made.
    """
    try:
        make_folder(file.parent)
    except OSError as error:
        raise ConnectionFailedError(
            f"The folder of the database {file} cannot be made: {error}. Check that "
            "DJ_DATABASE_URL names a file in a folder that this user may write."
        ) from error


def is_writable(session: SAConnection) -> bool:
    """Return whether the file can be written, by a write that changes nothing."""
    version = session.exec_driver_sql("PRAGMA user_version").scalar_one()
    try:
        # With a write-ahead log SQLite begins to write also where it cannot.
        session.exec_driver_sql(f"PRAGMA user_version = {version}")
    except DBAPIError as error:
        if "readonly" not in str(error.orig):
            raise
        return False
    return True


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
        If another schema differs only in case.
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
    """Return a random text stored in the file with the file's number on its disk."""
    if not _exists(connection, "~identity"):
        if not create:
            return None
        connection.exec_driver_sql(_CREATE_IDENTITY)
    if create:
        # The first row is kept, even if another process adds one.
        statement = 'INSERT OR IGNORE INTO "~identity" VALUES (1, ?)'
        connection.exec_driver_sql(statement, (uuid.uuid4().hex,))
    found = connection.exec_driver_sql('SELECT id FROM "~identity"').scalar()
    if found is None:
        return None
    file = next(row[2] for row in connection.exec_driver_sql("PRAGMA database_list"))
    return f"{found}-{Path(file).stat().st_ino:x}" if file else str(found)


def remove_schema(connection: SAConnection, schema: str) -> None:
    """Remove a schema with its comments."""
    connection.execute(sa.delete(_CATALOG).where(_CATALOG.c.schema_name == schema))


def add_comments(connection: SAConnection, name: TableName, comments: Mapping[str, str]) -> None:
    """Store comments by column, and under ``""`` that of the table."""
    _insert(connection, [(*name, column, text) for column, text in comments.items()])


def remove_comments(connection: SAConnection, name: TableName) -> None:
    """Remove the comments of a table, but keep those of its schema."""
    columns = _CATALOG.c
    of_table = (columns.schema_name == name.schema) & (columns.table_name == name.table)
    connection.execute(sa.delete(_CATALOG).where(of_table))


def table_names(connection: SAConnection, schema: str) -> list[str]:
    """Return the names of a schema's tables in SQL."""
    names = [row[0] for row in connection.exec_driver_sql(_COLUMNS, _span(schema))]
    return list(dict.fromkeys(names))


def view_statements(connection: SAConnection, schema: str) -> list[tuple[str, str]]:
    """Return the names of a schema's views in SQL, each with the statement that made it."""
    found = connection.exec_driver_sql(_VIEWS, _span(schema))
    return [(name, sql) for name, sql in found]


def tables(connection: SAConnection, schema: str) -> list[RawTable]:
    """Return a schema's tables, read by four statements."""
    if not _exists(connection):
        return []
    span = _span(schema)
    # Tables are read first; otherwise a table declared meanwhile would lack its comments.
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
        If SQLite was built without the virtual table ``dbstat``.
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
    columns: Reported,
    foreign_keys: Reported,
    unique: Reported,
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


_PREFIX = re.compile(r'substr\("(\w+)", 1, ([0-9]+)\)|"(\w+)" /\*\(([0-9]+)\)\*/')


def _index(rows: Reported) -> IndexDeclaration:
    unique, _, sql = rows[0]
    parts = tuple(column for _, column, _ in rows)
    if None in parts or "/*(" in (sql or ""):
        # Of an index of an expression SQLite keeps only the statement.
        line = SourceLine(sql, 0)
        opening = line.find("(")
        arguments = line.arguments(opening, line.closing(opening))
        parts = tuple(_PREFIX.sub(r"\1\3(\2\4)", text) for _, text in arguments)
    return IndexDeclaration(parts, unique=bool(unique))


def _default(text: str | None) -> Default | None:
    """Parse a default that `SQLiteBackend.default_sql` wrote."""
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


_SELECT = re.compile(r"\bAS\b(?=\s*(?:SELECT|WITH)\b)", re.IGNORECASE)

Columns = dict[str, StoredColumn]


def views(connection: SAConnection, schema: str, tables: Iterable[RawTable]) -> list[RawTable]:
    """Return the views of a schema, without those that SQLite itself can no longer read.

    Parameters
    ----------
    tables
        The tables of the schema.
    """
    found = view_statements(connection, schema)
    known = {str(raw.name): {c.name: c for c in raw.columns} for raw in tables} if found else {}
    return list(_views(connection, found, known))


def _views(
    connection: SAConnection, found: Iterable[tuple[str, str]], known: dict[str, Columns]
) -> Iterator[RawTable]:
    for name, sql in found:
        try:
            info = connection.exec_driver_sql(f'PRAGMA table_info("{name}")').fetchall()
        except DBAPIError:
            # The view selects from a table or column that no longer exists.
            continue
        names = [(column, kind) for _, column, kind, *_ in info]
        selected = _selected(sql, [column for column, _ in names], known)
        columns = tuple(_column(column, kind, selected.get(column)) for column, kind in names)
        known[name] = {column.name: column for column in columns}
        schema, _, view = name.partition(".")
        yield RawTable(TableName(schema, view), "", columns, (), (), is_view=True)


def _column(name: str, kind: str, origin: StoredColumn | None) -> StoredColumn:
    if origin is None:
        return StoredColumn(name, kind, True, None, "")
    return replace(origin, name=name, default=None, auto_increment=False)


def _selected(sql: str, names: list[str], known: Mapping[str, Columns]) -> Columns:
    """Return the columns of tables that a view selects unchanged, by name."""
    # Imported only if a view exists, because the import takes a moment.
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    match = _SELECT.search(sql)
    try:
        tree = parse_one(sql[match.end() :] if match else "", dialect="sqlite")
    except SqlglotError:
        return {}
    while isinstance(tree, exp.SetOperation):
        tree = tree.this
    if not isinstance(tree, exp.Select):
        return {}
    outer = any(join.side for join in tree.args.get("joins") or ())
    sources = {
        table.alias_or_name: known.get(table.name, {})
        for table in tree.find_all(exp.Table)
        if table.parent_select is tree
    }
    origins: list[StoredColumn | None] = []
    for part in tree.expressions:
        origins += _origins(part, sources)
    if len(origins) != len(names):
        return {}
    return {
        name: replace(origin, nullable=origin.nullable or outer)
        for name, origin in zip(names, origins, strict=True)
        if origin is not None
    }


def _origins(part: Expr, sources: Mapping[str, Columns]) -> list[StoredColumn | None]:
    """Return the columns that one term of a SELECT stands for, None for a computed value."""
    from sqlglot import exp

    term = part.unalias()
    if isinstance(term, exp.Star):
        return [column for columns in sources.values() for column in columns.values()]
    if not isinstance(term, exp.Column):
        return [None]
    columns = [sources.get(term.table, {})] if term.table else list(sources.values())
    if isinstance(term.this, exp.Star):
        return [column for known in columns for column in known.values()]
    having = [known[term.name] for known in columns if term.name in known]
    return [having[0] if len(having) == 1 else None]


FILE = "lab.sqlite"
_TABLES = """
SELECT name FROM sqlite_master WHERE type IN ('table', 'view')
AND name NOT IN ('~catalog', '~identity') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
"""


def dump(session: SAConnection, folder: Path) -> None:
    """Copy the database as the session's open transaction sees it."""
    with closing(sqlite3.connect(folder / FILE)) as target:
        _driver(session).backup(target)
    _check(folder / FILE)


def load(session: SAConnection, folder: Path) -> None:
    """Replace an empty database by a copy, completely or not at all."""
    with _opened(folder / FILE) as source:
        source.backup(_driver(session))


def occupied(session: SAConnection) -> list[str]:
    """Return the tables of a database."""
    return list(session.exec_driver_sql(_TABLES).scalars())


def _driver(session: SAConnection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, session.connection.driver_connection)


def _check(file: Path) -> None:
    """Raise an error if a database's pages are damaged."""
    with _opened(file) as source:
        (found,) = source.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DataJointError(
            f"The database is damaged, and so is its copy: {found}. Run PRAGMA integrity_check on "
            "it, and restore it from an earlier backup."
        )


def _opened(file: Path) -> closing[sqlite3.Connection]:
    # An immutable database is read without creating files beside it.
    return closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True))


class FileMarks(WriteMarks):
    """Watches the count of commits to the file; a change marks all tables as written."""

    def __init__(self, engine: sa.Engine, names: Collection[TableName], *, in_memory: bool) -> None:
        self._engine = engine
        self._names = frozenset(names)
        path = engine.url.database
        # A database in memory does not have a second connection to observe it.
        self._path = Path(path) if path and not in_memory else None
        self._session: SAConnection | None = None
        self._seen: tuple[int, ...] | None = None

    def written(self, read: Read) -> frozenset[TableName]:
        """Return all tables if the file's mark has changed or the file was replaced."""
        del read
        return self._names if self._path is None or self._changed(self._path) else frozenset()

    def _changed(self, path: Path) -> bool:
        file = path.stat()
        place = file.st_dev, file.st_ino
        if self._session is None or self._seen is None or self._seen[:2] != place:
            self._session = self._reopened()
            self._seen = None
        version = self._session.exec_driver_sql("PRAGMA data_version").scalar_one()
        seen, self._seen = self._seen, (*place, version)
        return seen != self._seen

    def _reopened(self) -> SAConnection:
        if self._session is not None:
            self._session.close()
        return self._engine.connect()


class FileRemaking(Remaking):
    """Remakes tables in a session whose foreign keys are switched off."""

    def __init__(self, session: SAConnection) -> None:
        self._session = session

    @contextmanager
    def translation(self, name: str, pairs: Sequence[Values]) -> Generator[sa.TableClause]:
        """Give a temporary table whose columns are untyped, so that values are not converted."""
        table = sa.table(f"converted~{name}", sa.column("old"), sa.column("new"))
        self._session.exec_driver_sql(
            f'CREATE TEMP TABLE "{table.name}" (old PRIMARY KEY, new) WITHOUT ROWID'
        )
        if pairs:
            rows = [{"old": old, "new": new} for old, new in pairs]
            self._session.execute(sa.insert(table), rows)
        yield table
        self._session.exec_driver_sql(f'DROP TABLE temp."{table.name}"')

    def replace(self, name: TableName, made: TableName) -> None:
        """Make the triggers anew, which go with their table; they have not fired meanwhile."""
        triggers = self._session.exec_driver_sql(_TRIGGERS, (str(name),)).scalars().all()
        self._session.exec_driver_sql(f'DROP TABLE "{name}"')
        remove_comments(self._session, name)
        self._session.exec_driver_sql(f'ALTER TABLE "{made}" RENAME TO "{name}"')
        for statement in triggers:
            self._session.exec_driver_sql(statement)

    def unmatched(self, name: TableName) -> Sequence[str]:
        """Check all foreign keys of the table, which were not enforced meanwhile."""
        rows = self._session.exec_driver_sql(f'PRAGMA foreign_key_check("{name}")').fetchall()
        return [row[2] for row in rows]


@contextmanager
def remaking(session: SAConnection, begin: str) -> Generator[FileRemaking]:
    """Commit the changes of a block together or not at all, with foreign keys switched off.

    Parameters
    ----------
    session
        A session outside of a transaction, inside which the switch does not work.
    begin
        The statement that opens a transaction.
    """
    session.exec_driver_sql("PRAGMA foreign_keys = OFF")
    # Otherwise SQLite refuses to rename a table while a view selects from the replaced one.
    session.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    try:
        session.exec_driver_sql(begin)
        try:
            yield FileRemaking(session)
            session.exec_driver_sql("COMMIT")
        except BaseException:
            session.exec_driver_sql("ROLLBACK")
            raise
    finally:
        session.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
        session.exec_driver_sql("PRAGMA foreign_keys = ON")
