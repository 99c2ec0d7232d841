"""The engine of a SQLite file: its connections, which follow a file that is replaced.

A user who may not write the file reads it. Where others have it open, SQLite takes part in their
locks. Otherwise it would need files beside the database that this user may not make, so that it is
read without locks; a file that is written meanwhile is noticed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from dj_dagster.relational.backends import sqlite_file, sqlite_functions

WAITING = 30.0
"""Seconds for which a connection waits until another lets go of the file."""

_OPENED = "file"
_READ_ONLY = "read only"


def create(url: sa.URL) -> sa.Engine:
    """Return an engine in autocommit mode, and create the folder of the database file.

    Raises
    ------
    ConnectionFailedError
        If the folder cannot be created.
    """
    in_memory = url.database in (None, "", ":memory:")
    if url.database and not in_memory:
        file = Path(url.database).resolve()
        sqlite_file.make_place(file)
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
    if not in_memory and url.database:
        _follow(engine, Path(url.database))
    event.listen(engine, "connect", _configure)
    reserve_words(engine.dialect)
    return engine


def is_replaced(session: SAConnection) -> bool:
    """Whether the file that a session has open has been replaced by another.

    If a copy was moved there, for example, the session would continue with a file that is not
    visible to others, and its writes would be lost. A missing file does not count, since it may
    come back. A file that is read without locks counts when it is written.
    """
    return _is_replaced(session.info)


def is_written(session: SAConnection) -> bool:
    """Whether a file that a session reads without locks has been written since it was opened."""
    return session.info.get(_READ_ONLY) == _WITHOUT_LOCKS and _is_replaced(session.info)


def reserve_words(dialect: sa.Dialect) -> None:
    """Quote two reserved words that SQLAlchemy does not know."""
    preparer = dialect.identifier_preparer
    preparer.reserved_words = {*preparer.reserved_words, "nothing", "returning"}


_WITH_LOCKS, _WITHOUT_LOCKS = "mode=ro", "immutable=1"


def _follow(engine: sa.Engine, file: Path) -> None:
    """Open the file as this user may, and replace connections to a file that was replaced."""

    def open_file(
        dialect: sa.Dialect, record: ConnectionPoolEntry, arguments: object, options: dict[str, Any]
    ) -> DBAPIConnection | None:
        del arguments
        how = record.info[_READ_ONLY] = _read_only(file)
        record.info[_OPENED] = file, _identity(file, how)
        if how is None:
            return None
        return dialect.connect(f"{file.as_uri()}?{how}", **{**options, "uri": True})

    def opened(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        del connection
        if record.info[_OPENED][1] is None:
            # It is a new file.
            record.info[_OPENED] = file, _identity(file, None)

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object) -> None:
        del connection, proxy
        if _is_replaced(record.info):
            raise DisconnectionError(f"{file} was replaced")

    event.listen(engine, "do_connect", open_file)
    event.listen(engine, "connect", opened)
    event.listen(engine, "checkout", taken)


def _read_only(file: Path) -> str | None:
    """Return how a file is opened that this user may only read, None for any other.

    A file that is not there, or that may not be read either, is opened as usual, which fails.
    """
    shared, log = _beside(file, "-shm"), _beside(file, "-wal")
    # In this order, as a file may appear in between.
    if not os.access(file, os.R_OK):
        return None
    if os.access(file, os.W_OK) and (shared.exists() or os.access(file.parent, os.W_OK)):
        return None
    # What the log holds is lost without locks.
    return _WITH_LOCKS if shared.exists() or _size(log) else _WITHOUT_LOCKS


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _is_replaced(info: dict[Any, Any]) -> bool:
    file, known = info.get(_OPENED, (None, None))
    now = _identity(file, info.get(_READ_ONLY)) if known else None
    return now is not None and now != known


def _identity(file: Path, how: str | None) -> tuple[int, ...] | None:
    try:
        found = file.stat()
        which = found.st_dev, found.st_ino
        if how != _WITHOUT_LOCKS:
            return which
        return *which, found.st_mtime_ns, found.st_size, _beside(file, "-shm").exists()
    except OSError:
        return None


def _use_write_ahead_log(cursor: DBAPICursor) -> None:
    """Switch a file to the write-ahead log, which it then keeps.

    Of several processes that switch a new file at once, SQLite refuses all but one, without the
    wait that the timeout asks for.
    """
    end = time.monotonic() + WAITING
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _configure(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {round(1000 * WAITING)}")
    if record.info.get(_READ_ONLY) is None:
        _use_write_ahead_log(cursor)
    # With NORMAL a power cut may undo the last commits, whose objects have already been written or
    # collected. FULL waits for the disk at each commit.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    registry = cast(sqlite_functions.Registry, connection)
    sqlite_functions.register_functions(registry)
    sqlite_functions.register_digests(registry)
