"""The file of a SQLite database: marks of writes, dumps, and rebuilding of tables.

SQLite counts the commits of others for every connection that stays open. The count shows that the
file was written, but not which table. Tables are rebuilt by the steps that SQLite's documentation
of ALTER TABLE recommends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import DataJointError
from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.changes import Read, Remaking, WriteMarks

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
    def translation(self, name: str, pairs: Sequence[tuple[Any, Any]]) -> Generator[sa.TableClause]:
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

    def rename(self, made: TableName, name: TableName) -> None:
        """Rename the table with its indexes."""
        self._session.exec_driver_sql(f'ALTER TABLE "{made}" RENAME TO "{name}"')

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
