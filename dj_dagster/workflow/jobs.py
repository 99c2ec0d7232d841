"""The job queue of a computed table: which keys are being made, which failed and why.

One hidden table ``~~name`` for each computed table, with DataJoint 2.3's columns and statuses.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from getpass import getuser
from typing import Any

import sqlalchemy as sa

from dj_dagster.definition import parse_definition
from dj_dagster.errors import PopulateError
from dj_dagster.model.declaration import Default
from dj_dagster.model.table_name import TableName
from dj_dagster.model.types import parse_type
from dj_dagster.relational import declare, fetch, write
from dj_dagster.relational.algebra import All, AnyOf, Equals, In, Node, all_rows, restrict
from dj_dagster.relational.encode import encode_rows
from dj_dagster.relational.lowering import Lowering
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table

PRIORITY = 5
"""DataJoint's default; lower is sooner."""

MESSAGE_LENGTH = 2047
"""Characters of an error message that the queue keeps."""

_DEFINITION = """
# Job queue for `{schema}`.`{table}`
{key}
---
status : enum('pending', 'reserved', 'success', 'error', 'ignore')
priority : int8  # lower is sooner
created_time = CURRENT_TIMESTAMP(3) : datetime(3)
scheduled_time = CURRENT_TIMESTAMP(3) : datetime(3)
reserved_time = null : datetime(3)
completed_time = null : datetime(3)
duration = null : float64  # seconds
error_message = '' : varchar(2047)
error_stack = null : <blob>
user = '' : varchar(255)
host = '' : varchar(255)
pid = 0 : int32
connection_id = 0 : int64
version = '' : varchar(64)
index(status, priority, scheduled_time)
"""


class JobQueue:
    """The jobs of one computed table.

    Parameters
    ----------
    table
        The computed table; its queue is created when it is first needed.
    """

    def __init__(self, table: Table) -> None:
        self._connection = table.connection
        self._table = table
        self.name = TableName(table.database, f"~~{table.table_name.lstrip('_')}")

    @cached_property
    def stored(self) -> StoredTable:
        """The queue's table.

        Raises
        ------
        PopulateError
            If no attribute of the table's key comes from a foreign key.
        """
        if self._connection.catalog.find(self.name) is None:
            self._create()
        stored = self._connection.catalog.find(self.name)
        assert stored is not None
        return stored

    @property
    def key(self) -> list[str]:
        """The part of the table's key that comes from its foreign keys."""
        inherited = {
            name for key in self._table.foreign_keys if key.primary for name in key.attributes
        }
        return [name for name in self._table.primary_key if name in inherited]

    def node(self, *statuses: str) -> Node:
        """Return the query for the jobs in any of these statuses."""
        jobs = all_rows(self.name, self.stored.heading)
        return restrict(jobs, In(("status",), tuple((status,) for status in statuses)))

    def to_dicts(self, *statuses: str) -> list[dict[str, Any]]:
        """Return the jobs in any of these statuses, all of their columns."""
        return fetch.dicts(self._connection, self.node(*statuses), self.stored.heading.names)

    def reserve(self, key: Mapping[str, Any], *, retry_errors: bool = False) -> bool:
        """Claim a key for this process; False if it is claimed, failed or to be ignored.

        The row's primary key makes this exclusive: of any number of workers one succeeds.
        """
        job = {**self._job_key(key), "status": "pending", "priority": PRIORITY}
        free = ("pending", "error") if retry_errors else ("pending",)
        values = {"status": "reserved", "reserved_time": self._now(), **_worker()}
        encoded = encode_rows(self._connection, self.stored, [job], mode="skip")
        with self._connection.transaction():
            write.submit(self._connection, encoded)
            return self._update(key, free, values) == 1

    def complete(self, key: Mapping[str, Any]) -> None:
        """Forget a job: its rows are in the table."""
        target, where = self._rows(key, ("reserved",))
        self._connection.execute(sa.delete(target).where(where))

    def error(self, key: Mapping[str, Any], message: str, stack: str) -> None:
        """Keep why a job failed; it is not tried again until someone asks for it."""
        # No database takes half a surrogate pair, which file names can hold.
        message = message.encode(errors="backslashreplace").decode()
        if len(message) > MESSAGE_LENGTH:
            message = message[: MESSAGE_LENGTH - len("...truncated")] + "...truncated"
        values = {
            "status": "error",
            "completed_time": self._now(),
            "error_message": message,
            "error_stack": self._connection.codecs.get("blob").encode(
                stack.encode(errors="backslashreplace").decode()
            ),
        }
        self._update(key, ("reserved",), values)

    def release(self, key: Mapping[str, Any]) -> None:
        """Give up a reservation, as if it had never been made."""
        self.complete(key)

    def release_dead(self) -> int:
        """Give up the reservations of processes of this machine that are gone; return how many.

        A process of another machine cannot be asked: `release` its keys when it is known dead.
        """
        reserved = restrict(self.node("reserved"), Equals("host", platform.node()))
        jobs = fetch.dicts(self._connection, reserved, [*self.key, "pid"])
        dead = [job for job in jobs if not _alive(job["pid"])]
        for job in dead:
            self.release(job)
        return len(dead)

    def _create(self) -> None:
        if not self.key:
            raise PopulateError(
                f"{self._table.name} cannot reserve jobs: no attribute of its primary key comes "
                "from a foreign key."
            )
        heading = self._table.heading
        types = {name: heading[name].type for name in self.key}
        lines = [f"{name} : {kind.text}" for name, kind in types.items() if kind is not None]
        schema, table = self._table.name
        text = _DEFINITION.format(schema=schema, table=table, key="\n".join(lines))
        definition = parse_definition(text, table=str(self.name))

        def no_parents(item: object) -> StoredTable:
            raise PopulateError(f"A job queue has no foreign keys: {item!r}")

        self._connection.catalog.forget(schema)
        declare.ensure_table(self._connection, self.name, definition, no_parents)

    def _job_key(self, key: Mapping[str, Any]) -> dict[str, Any]:
        return {name: key[name] for name in self.key}

    def _rows(self, key: Mapping[str, Any], statuses: Sequence[str]) -> tuple[Any, Any]:
        heading = self.stored.heading
        lowering = Lowering(self._connection.backend)
        target, over = lowering.target(all_rows(self.name, heading))
        of_key = tuple(Equals(name, value) for name, value in self._job_key(key).items())
        status = AnyOf(tuple(Equals("status", status) for status in statuses))
        return target, lowering.where(All((*of_key, status)), over, heading)

    def _update(
        self, key: Mapping[str, Any], statuses: Sequence[str], values: dict[str, Any]
    ) -> int:
        target, where = self._rows(key, statuses)
        return self._connection.execute(sa.update(target).where(where).values(values))

    def _now(self) -> sa.ColumnElement[Any]:
        now = Default("CURRENT_TIMESTAMP(3)", is_expression=True)
        return sa.literal_column(
            self._connection.backend.default_sql(now, parse_type("datetime(3)"))
        )


def _worker() -> dict[str, Any]:
    return {"user": getuser(), "host": platform.node(), "pid": os.getpid()}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
