"""Which tables may have changed: asked of the database, at a price that no number of rows raises.

SQLite counts the commits of others for every connection that stays open; that says of the file, not
of a table, that something was written. What servers tell, `mysql_marks` reads.

Triggers would tell more. They are not used: they need rights that few users of a server have, and
tables are other people's, whose inserts they would slow down, and whose dumps they would go along
with.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.mysql_server import SETTLED
from dj_dagster.relational.database.connection import Connection


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
        schemas = sorted({name.schema for name in self._names})
        backend = self._connection.backend
        marks = self._connection.read(lambda session: backend.server_marks(session, schemas))
        restarted = self._restarted(marks.started)
        changed = {
            name
            for name in self._names
            if restarted or name not in self._marks or self._marks[name] != marks.tables.get(name)
        }
        self._started = marks.started or self._started
        self._marks = {
            name: marks.tables.get(name) for name in self._names if name not in marks.unsettled
        }
        return frozenset(changed)

    def _restarted(self, started: datetime | None) -> bool:
        """Whether the server has started since the last time: it has forgotten what was written."""
        if started is None:
            return False
        return self._started is None or abs(started - self._started) > SETTLED


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
