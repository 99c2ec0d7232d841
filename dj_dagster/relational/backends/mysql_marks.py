"""Marks of writes on a MySQL or MariaDB server.

InnoDB keeps the time of a table's last write in memory, to the second. It sets the time at commit,
also for rows changed through a foreign key, and loses it when the server restarts. MySQL also
counts the rows written to each table since the start, but before they are committed, so the counts
alone do not suffice. TRUNCATE is visible too: MySQL resets the time and MariaDB the estimated
number of rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection as SAConnection
from sqlalchemy.exc import DBAPIError

from dj_dagster.model.names import TableName
from dj_dagster.relational.backends.changes import Read, WriteMarks
from dj_dagster.relational.backends.mysql_server import uptime

SETTLED = timedelta(seconds=2)
"""Age of a time of the server at which further writes in its second are ruled out."""

_TABLES = """
SELECT TABLE_NAME, UPDATE_TIME, CREATE_TIME, TABLE_ROWS > 0, NOW()
FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
"""
_COUNTS = """
SELECT OBJECT_NAME, COUNT_INSERT, COUNT_UPDATE, COUNT_DELETE
FROM performance_schema.table_io_waits_summary_by_table
WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = %s
"""
# Otherwise MySQL answers from cached statistics. A hint in a query cannot set this variable.
_FRESH = "SET SESSION information_schema_stats_expiry = 0"


class ServerMarks(WriteMarks):
    """Compares the server's marks of the tables with the last ones.

    Parameters
    ----------
    names
        The tables; one that does not exist yet counts as written once it exists.
    """

    def __init__(self, names: Collection[TableName]) -> None:
        self._names = frozenset(names)
        self._schemas = sorted({name.schema for name in names})
        self._marks: dict[TableName, Any] = {}
        self._started: datetime | None = None

    def written(self, read: Read) -> frozenset[TableName]:
        """Return the tables with a changed mark, all of them after a restart of the server."""
        marks = read(lambda session: _read(session, self._schemas))
        restarted = self._restarted(marks.started)
        written = {
            name
            for name in self._names
            if restarted or name not in self._marks or self._marks[name] != marks.tables.get(name)
        }
        self._started = marks.started or self._started
        self._marks = {
            name: marks.tables.get(name) for name in self._names if name not in marks.unsettled
        }
        return frozenset(written)

    def _restarted(self, started: datetime | None) -> bool:
        """Whether the server has restarted since the last call, which loses the times of writes."""
        if started is None:
            return False
        return self._started is None or abs(started - self._started) > SETTLED


@dataclass
class _Marks:
    """The marks of the tables of some schemas at one moment.

    Attributes
    ----------
    tables
        By table a value that changes when the table is written.
    unsettled
        Tables that were written just now: further writes may not change their mark.
    started
        The time at which the server started; None without any table.
    """

    tables: dict[TableName, tuple[Any, ...]] = field(default_factory=dict)
    unsettled: set[TableName] = field(default_factory=set)
    started: datetime | None = None


def _read(session: SAConnection, schemas: Collection[str]) -> _Marks:
    """Return the marks of all tables in some schemas, by one or two statements for each."""
    marks, now = _Marks(), None
    maria = getattr(session.dialect, "is_mariadb", False)
    if not maria and "answers afresh" not in session.info:
        session.exec_driver_sql(_FRESH)
        session.info["answers afresh"] = True
    for schema in schemas:
        # Counts are read before times, since rows are counted before they are committed.
        counts = {} if maria else _counts(session, schema)
        for table, updated, created, filled, now in session.exec_driver_sql(_TABLES, (schema,)):
            name = TableName(schema, table)
            marks.tables[name] = updated, created, filled, *counts.get(table, ())
            if updated is not None and updated > now - SETTLED:
                marks.unsettled.add(name)
    if now is not None:
        marks.started = now - timedelta(seconds=uptime(session))
    return marks


def _counts(session: SAConnection, schema: str) -> dict[str, tuple[int, ...]]:
    """Return the numbers of inserted, updated and deleted rows, where the user may read them."""
    if session.info.get("counts") is False:
        return {}
    try:
        rows = session.exec_driver_sql(_COUNTS, (schema,)).fetchall()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        session.info["counts"] = False
        return {}
    return {table: tuple(counts) for table, *counts in rows}
