"""``~jobs``, the table of a schema's jobs for workers of DataJoint 0.14.

In a schema of that era it is kept beside our own queues, so that workers of both leave each
other's keys alone. A key without a row there is free. A key that is reserved, failed or ignored by
any worker has a row, and is left alone until the row is gone.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dj_dagster.compat.spellings import key_hash
from dj_dagster.errors import BlobError
from dj_dagster.model.heading import Values
from dj_dagster.model.names import TableName
from dj_dagster.objects.blob.reader import unpack
from dj_dagster.objects.blob.writer import pack
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.liveness import own_host

TABLE = "~jobs"

_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    `table_name` varchar(255) NOT NULL COMMENT 'className of the table',
    `key_hash` char(32) NOT NULL COMMENT 'key hash',
    `status` enum('reserved','error','ignore') NOT NULL
        COMMENT 'if tuple is missing, the job is available',
    `key` blob DEFAULT NULL COMMENT 'structure containing the key',
    `error_message` varchar(2047) NOT NULL DEFAULT '' COMMENT 'error message returned if failed',
    `error_stack` mediumblob DEFAULT NULL COMMENT 'error stack if failed',
    `user` varchar(255) NOT NULL DEFAULT '' COMMENT 'database user',
    `host` varchar(255) NOT NULL DEFAULT '' COMMENT 'system hostname',
    `pid` int unsigned NOT NULL DEFAULT 0 COMMENT 'system process id',
    `connection_id` bigint unsigned NOT NULL DEFAULT 0 COMMENT 'connection_id()',
    `timestamp` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'automatic timestamp',
    PRIMARY KEY (`table_name`, `key_hash`)
) ENGINE=InnoDB COMMENT 'job reservation table for `{schema}`'
"""
_ENDED = "SELECT `key`, status, error_message, error_stack FROM {} WHERE table_name = %s"
_CHUNK = 1000
_OWN = "`status` = 'reserved' AND `host` = %s AND `pid` = %s"
_WORKER = "`key` = VALUES(`key`), `user` = VALUES(`user`), `host` = VALUES(`host`), " \
    "`pid` = VALUES(`pid`), `connection_id` = VALUES(`connection_id`)"  # fmt: skip

T = TypeVar("T")


def ensure_jobs(connection: Connection, schema: str) -> TableName:
    """Create a schema's ``~jobs`` as 0.14 does, unless it is there; return its name."""
    name = TableName(schema, TABLE)
    if connection.catalog.raw(name) is None:
        with connection.cursor() as session:
            statement = _CREATE.format(table=connection.backend.full_name(name), schema=schema)
            session.exec_driver_sql(statement.replace("%", "%%"))
        connection.catalog.forget(schema)
    return name


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that failed, or is to be left out; `key` is empty if it is not known."""

    key: dict[str, object]
    status: str
    message: str
    stack: str | None


class SharedJobs:
    """The jobs of one computed table in its schema's ``~jobs``, by the values of their keys.

    Parameters
    ----------
    key
        The names of the keys' attributes, in the order of the values.
    user
        The user of this process's reservations.
    """

    def __init__(
        self, connection: Connection, table: TableName, key: Sequence[str], user: str
    ) -> None:
        self._connection = connection
        self._table = table
        self._key = tuple(key)
        self._user = user
        place = TableName(table.schema, TABLE)
        self._name = connection.backend.full_name(place).replace("%", "%%")

    def statuses(self) -> dict[str, str]:
        """Return the status of each job of the table, by the hash of its key."""
        rows = self._rows("SELECT key_hash, status FROM {} WHERE table_name = %s")
        return {str(key): str(status) for key, status in rows}

    def held(self, rows: Iterable[Values], but: Sequence[str] = ()) -> set[Values]:
        """Return those of some keys that have a job, in any status that is not in `but`."""
        found = self.statuses()
        left = {digest for digest, status in found.items() if status not in but}
        return {row for row in rows if self._hash(row) in left} if left else set()

    def differing(self, rows: Iterable[Values]) -> tuple[list[Values], list[EndedJob]]:
        """Return those of some keys that are without a job, and the ended jobs of other keys.

        Jobs with an unknown key are left out.
        """
        known, hashes = self.statuses(), {row: self._hash(row) for row in rows}
        gone = [row for row, digest in hashes.items() if digest not in known]
        ended = {digest for digest, status in known.items() if status != "reserved"}
        wanted = sorted(ended - set(hashes.values()))
        new: list[EndedJob] = []
        for chunk in _chunks(wanted):
            marks = ", ".join(["%s"] * len(chunk))
            new += map(_ended, self._rows(f"{_ENDED} AND key_hash IN ({marks})", *chunk))
        return gone, [job for job in new if job.key.keys() == set(self._key)]

    def reserve(self, row: Values) -> bool:
        """Reserve a key unless it has a job."""
        return self._insert([row], "reserved", "INSERT IGNORE INTO") == 1

    def take(self, rows: Sequence[Values], statuses: Sequence[str]) -> list[Values]:
        """Reserve those of some keys that are without a job, or failed if `statuses` has ``error``.

        Called in the transaction in which they are reserved in the queue as well.
        """
        mine: list[Values] = []
        for chunk in _chunks(rows):
            if self._insert(chunk, "reserved", "INSERT IGNORE INTO") == len(chunk):
                mine += chunk
                continue
            if "error" in statuses:
                self._update_failed(chunk)
            # A locking read sees the rows as they are now, not as when the transaction began.
            query = "SELECT key_hash FROM {} WHERE table_name = %s AND " + _OWN
            found = self._rows(f"{query} FOR UPDATE", *_worker())
            own = {str(digest) for (digest,) in found}
            mine += [row for row in chunk if self._hash(row) in own]
        return mine

    def give_back(self, rows: Iterable[Values], host: str = "", pid: int | None = None) -> None:
        """Forget the reservations of a worker, this one by default."""
        self._delete(rows, _OWN, (host, pid) if pid is not None else _worker())

    def release(self, rows: Iterable[Values]) -> None:
        """Forget reservations of any worker."""
        self._delete(rows, "`status` = 'reserved'")

    def forget(self, rows: Iterable[Values]) -> None:
        """Forget jobs of any worker."""
        self._delete(rows)

    def fail(self, row: Values, message: str, stack: str | None) -> None:
        """Keep the error of a job that failed."""
        errors = (
            ", `error_message` = VALUES(`error_message`), `error_stack` = VALUES(`error_stack`)"
        )
        self._insert(
            [row], "error", "INSERT INTO", errors, (message, None if stack is None else pack(stack))
        )

    def ignore(self, rows: Sequence[Values]) -> None:
        """Leave keys out from now on."""
        self._insert(rows, "ignore", "INSERT INTO", "")

    def _insert(
        self,
        rows: Sequence[Values],
        status: str,
        verb: str,
        change: str | None = None,
        error: tuple[str, bytes | None] = ("", None),
    ) -> int:
        """Insert jobs; `change` also changes those that are there."""
        values: list[object] = []
        # The word that tells workers of equal names apart matters while a key is reserved.
        host, pid = _worker() if status == "reserved" else (platform.node()[:255], os.getpid())
        for row in rows:
            key = dict(zip(self._key, row, strict=True))
            values += [self._table.table, key_hash(key), status, _packed(key), *error]
            values += [self._user[:255], host, pid]
        marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s, connection_id())"] * len(rows))
        statement = (
            f"{verb} {self._name} (table_name, key_hash, status, `key`, error_message, error_stack,"
            f" `user`, host, pid, connection_id) VALUES {marks}"
        )
        if change is not None:
            statement += (
                " ON DUPLICATE KEY UPDATE `status` = VALUES(`status`), "
                f"`timestamp` = CURRENT_TIMESTAMP, {_WORKER}{change}"
            )
        return self._run(statement, values)

    def _update_failed(self, rows: Sequence[Values]) -> None:
        marks = ", ".join(["%s"] * len(rows))
        self._run(
            f"UPDATE {self._name} SET status = 'reserved', `user` = %s, host = %s, pid = %s, "
            "connection_id = connection_id(), error_message = '', error_stack = NULL, "
            "`timestamp` = CURRENT_TIMESTAMP WHERE table_name = %s AND status = 'error' AND "
            f"key_hash IN ({marks})",
            [self._user[:255], *_worker(), self._table.table, *map(self._hash, rows)],
        )

    def _delete(
        self, rows: Iterable[Values], condition: str = "TRUE", values: Sequence[object] = ()
    ) -> None:
        for chunk in _chunks(list(rows)):
            marks = ", ".join(["%s"] * len(chunk))
            self._run(
                f"DELETE FROM {self._name} WHERE table_name = %s AND {condition} "
                f"AND key_hash IN ({marks})",
                [self._table.table, *values, *map(self._hash, chunk)],
            )

    def _rows(self, query: str, *values: object) -> list[Values]:
        with self._connection.cursor() as session:
            found = session.exec_driver_sql(query.format(self._name), (self._table.table, *values))
            return [tuple(row) for row in found]

    def _run(self, statement: str, values: Sequence[object]) -> int:
        def work() -> int:
            with self._connection.cursor() as session:
                return session.exec_driver_sql(statement, tuple(values)).rowcount

        return self._connection.retrying(work, lost=False)

    def _hash(self, row: Values) -> str:
        return key_hash(dict(zip(self._key, row, strict=True)))


def _ended(row: Values) -> EndedJob:
    key, status, message, stack = row
    try:
        found = {} if key is None else unpack(key)
        told = None if stack is None else unpack(stack)
    except BlobError:
        found, told = {}, None
    return EndedJob(
        dict(found) if isinstance(found, Mapping) else {},
        str(status),
        str(message),
        None if told is None else str(told),
    )


def _worker() -> tuple[str, int]:
    return own_host(), os.getpid()


def _packed(key: Mapping[str, object]) -> bytes | None:
    """Return a key as a blob of 0.14, None if that cannot hold its values."""
    try:
        return pack({name: int(v) if isinstance(v, bool) else v for name, v in key.items()})
    except BlobError:
        return None


def _chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]
