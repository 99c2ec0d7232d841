"""Which tables may have changed: asked of the database, at a price that no number of rows raises.

SQLite counts the commits of others for every connection that stays open; that says of the file, not
of a table, that something was written. InnoDB keeps in memory when a table was written last, to the
second, and forgets it when the server starts.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.table_name import TableName
from dj_dagster.relational.database.connection import Connection

SETTLED = timedelta(seconds=2)
"""How long ago a time of the server must be for nothing else to have happened in its second."""

_TABLES = sa.text(
    # MySQL 8 would answer from yesterday's statistics; to MariaDB the hint is a comment.
    "SELECT /*+ SET_VAR(information_schema_stats_expiry = 0) */ "
    "TABLE_NAME, UPDATE_TIME, CREATE_TIME, NOW() "
    "FROM information_schema.TABLES WHERE TABLE_SCHEMA = :schema"
)
_UPTIME = sa.text("SHOW GLOBAL STATUS LIKE 'Uptime'")


class ChangeMarks:
    """Watches the tables of one database for commits of any client.

    Parameters
    ----------
    names
        The tables; one that does not exist yet has changed when it is there.
    """

    def __init__(self, connection: Connection, names: Collection[TableName]) -> None:
        self._connection = connection
        self._names = frozenset(names)
        self._file = _FileMark(connection) if connection.backend.name == "sqlite" else None
        self._marks: dict[TableName, Any] = {}
        self._started: datetime | None = None

    def changed(self) -> frozenset[TableName]:
        """Return the tables that may have changed since this was asked before; at first all.

        Raises
        ------
        ConnectionFailedError
            If the database cannot be reached.
        """
        if self._file is not None:
            return self._names if self._file.changed() else frozenset()
        marks, now = self._read()
        restarted = self._restarted(now)
        changed = {
            name
            for name in self._names
            if restarted or name not in self._marks or self._marks[name] != marks.get(name)
        }
        self._marks = {name: marks.get(name) for name in self._names}
        for name, mark in marks.items():
            if mark[0] is not None and mark[0] > now - SETTLED:
                # More can be written within the same second.
                self._marks.pop(name, None)
        return frozenset(changed)

    def _read(self) -> tuple[dict[TableName, tuple[datetime | None, datetime | None]], datetime]:
        marks: dict[TableName, tuple[datetime | None, datetime | None]] = {}
        now = datetime.max
        for schema in sorted({name.schema for name in self._names}):
            for table, updated, created, time in self._connection.rows(
                _TABLES.bindparams(schema=schema)
            ):
                now = min(now, time)
                if TableName(schema, table) in self._names:
                    marks[TableName(schema, table)] = updated, created
        return marks, now

    def _restarted(self, now: datetime) -> bool:
        """Whether the server has started since the last time: it has forgotten what was written."""
        if now == datetime.max:
            return False
        uptime = int(self._connection.rows(_UPTIME)[0][1])
        started, before = now - timedelta(seconds=uptime), self._started
        self._started = started
        return before is None or abs(started - before) > SETTLED


class _FileMark:
    """Whether anyone else has committed to a SQLite file."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        path = connection.engine.url.database
        # A database in memory has no other connection that could tell.
        in_memory = isinstance(connection.engine.pool, sa.SingletonThreadPool)
        self._path = Path(path) if path and not in_memory else None
        self._session: SAConnection | None = None
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        if self._path is None:
            return True
        file = self._path.stat()
        if (
            self._session is None
            or self._seen is None
            or self._seen[:2]
            != (
                file.st_dev,
                file.st_ino,
            )
        ):
            self._reopen()
        session = self._session
        assert session is not None
        version = session.exec_driver_sql("PRAGMA data_version").scalar_one()
        seen, self._seen = self._seen, (file.st_dev, file.st_ino, version)
        return seen != self._seen

    def _reopen(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._connection.engine.connect()
        self._seen = None
