"""The file of a SQLite database: opened, followed when it is replaced, marked, dumped and loaded.

SQLite counts the commits of others for every connection that stays open. That says of the file that
something was written, and not of which table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from dj_dagster.errors import DataJointError
from dj_dagster.local_files import make_folder
from dj_dagster.model.names import TableName
from dj_dagster.relational.backends import sqlite_functions
from dj_dagster.relational.backends.base import Read, WriteMarks


def create(url: sa.URL) -> sa.Engine:
    """Return an engine in autocommit mode; the folder of the database file is made."""
    in_memory = url.database in (None, "", ":memory:")
    if url.database and not in_memory:
        file = Path(url.database).resolve()
        make_folder(file.parent)
        # Absolute, so that a later change of the working directory does not matter.
        url = url.set(database=str(file))
    pool = {} if in_memory else {"max_overflow": -1}
    engine = sa.create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        enable_from_linting=False,
        # Values may be private.
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "connect", _configure)
    if not in_memory and url.database:
        _follow(engine, Path(url.database))
    reserve_words(engine.dialect)
    return engine


def is_replaced(session: SAConnection) -> bool:
    """Whether another file has come in the place of the one that a session has open.

    Such as a copy that somebody has moved there: the session would go on with a file that nobody
    else sees, and its writes would be lost. A file that is away for now may come back.
    """
    return _is_replaced(session.info)


def reserve_words(dialect: sa.Dialect) -> None:
    """Have two words quoted that SQLAlchemy does not know to be reserved."""
    preparer = dialect.identifier_preparer
    preparer.reserved_words = {*preparer.reserved_words, "nothing", "returning"}


_OPENED = "file"


def _follow(engine: sa.Engine, file: Path) -> None:
    """Have connections to a file that was replaced give way to new ones."""

    def opened(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        del connection
        record.info[_OPENED] = file, _identity(file)

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        del connection, proxy
        if _is_replaced(record.info):
            raise DisconnectionError(f"{file} was replaced")

    event.listen(engine, "connect", opened)
    event.listen(engine, "checkout", taken)


def _is_replaced(info: dict[Any, Any]) -> bool:
    file, known = info.get(_OPENED, (None, None))
    now = _identity(file) if known else None
    return now is not None and now != known


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _configure(connection: DBAPIConnection, record: object) -> None:
    del record
    cursor = connection.cursor()
    # The timeout comes first: the switch to the write-ahead log itself waits for other processes.
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # With NORMAL a power cut may take the last commits back, whose objects are there by then, or
    # were collected. FULL waits for the disk at each commit.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    registry = cast(sqlite_functions.Registry, connection)
    sqlite_functions.register_functions(registry)
    sqlite_functions.register_digests(registry)


FILE = "lab.sqlite"
_TABLES = """
SELECT name FROM sqlite_master WHERE type IN ('table', 'view')
AND name NOT IN ('~catalog', '~identity') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
"""


def dump(session: SAConnection, folder: Path) -> None:
    """Copy the database, as the session's open transaction sees it."""
    with closing(sqlite3.connect(folder / FILE)) as target:
        _driver(session).backup(target)
    _check(folder / FILE)


def load(session: SAConnection, folder: Path) -> None:
    """Put a copy in the place of an empty database: whole, or not at all."""
    with _opened(folder / FILE) as source:
        source.backup(_driver(session))


def occupied(session: SAConnection) -> list[str]:
    """Return the tables of a database."""
    return list(session.exec_driver_sql(_TABLES).scalars())


def _driver(session: SAConnection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, session.connection.driver_connection)


def _check(file: Path) -> None:
    """Raise what is wrong with a database's pages."""
    with _opened(file) as source:
        (found,) = source.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DataJointError(
            f"The database is damaged, and so is its copy: {found}. Run PRAGMA integrity_check on "
            "it, and restore it from an earlier backup."
        )


def _opened(file: Path) -> closing[sqlite3.Connection]:
    # What is immutable is read without files beside it.
    return closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True))


def is_in_memory(engine: sa.Engine) -> bool:
    """Whether a database is no file, so that no connection but its own sees it."""
    return isinstance(engine.pool, sa.SingletonThreadPool)


class FileMarks(WriteMarks):
    """Watches the count of commits to the file: tables are written together, or none is."""

    def __init__(self, engine: sa.Engine, names: Collection[TableName]) -> None:
        self._engine = engine
        self._names = frozenset(names)
        path = engine.url.database
        # A database in memory has no other connection that could tell.
        self._path = Path(path) if path and not is_in_memory(engine) else None
        self._session: SAConnection | None = None
        self._seen: tuple[int, ...] | None = None

    def written(self, read: Read) -> frozenset[TableName]:
        """Return all tables if the file has another mark, or is another one."""
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
