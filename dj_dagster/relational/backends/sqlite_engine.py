"""Connections to a SQLite file, configured as they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from dj_dagster.local_files import make_folder
from dj_dagster.relational.backends import sqlite_digest, sqlite_functions


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
    sqlite_functions.register(registry)
    sqlite_digest.register(registry)
