"""The hidden table ``~~name`` that holds a job queue, and changes of its rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import sqlalchemy as sa

from dj_dagster.definition import parse_definition
from dj_dagster.errors import InvalidValueError, PopulateError
from dj_dagster.model.heading import Heading, Row, Value, Values
from dj_dagster.model.names import TableName, Tier
from dj_dagster.model.types import Family, parse_type
from dj_dagster.relational.algebra.nodes import (
    All,
    AnyOf,
    Between,
    Condition,
    In,
    Negated,
    Node,
    Now,
)
from dj_dagster.relational.algebra.operators import all_rows, restrict
from dj_dagster.relational.backends.common import as_datetime
from dj_dagster.relational.database import write
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.declaring import declare
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import Convert
from dj_dagster.relational.inserting.encode import encode_rows
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.relational.stored import StoredTable
from dj_dagster.relational.table import Table
from dj_dagster.relational.values import comparable
from dj_dagster.workflow.collation import paired
from dj_dagster.workflow.liveness import Reservation, dead, own_host
from dj_dagster.workflow.make import PopulatedTable, has_own_key_source, own_key_source
from dj_dagster.workflow.shared_jobs import SharedJobs

T = TypeVar("T")

MESSAGE_LENGTH = 2047
"""Characters of an error message that the queue keeps."""

CHUNK = 1000
"""Rows of one statement, at most."""

DUE = Between("scheduled_time", None, Now())
LATER = All((In(("status",), (("pending",),)), Negated(DUE)))
"""Conditions on jobs that wait, by the database's time."""

FREE: Row = {
    "reserved_time": None,
    "completed_time": None,
    "duration": None,
    "error_message": "",
    "error_stack": None,
    "host": "",
    "user": "",
    "pid": 0,
    "connection_id": 0,
    "version": "",
}
"""The columns of a job without a worker."""

_COLUMNS = {*FREE, "status", "priority", "created_time", "scheduled_time"}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that claims keys, as the queue notes it in reservations."""

    user: str
    version: str = ""

    def columns(self) -> dict[str, object]:
        """Return the values of the worker's columns, in this process."""
        return {
            "user": self.user[:255],
            "host": own_host(),
            "pid": os.getpid(),
            "version": self.version[:64],
        }


@dataclass(frozen=True)
class JobRows:
    """One queue's table; all keys here are tuples in the order of `key`.

    Attributes
    ----------
    shared
        The jobs table of DataJoint 0.14, in a schema of that era. Changes that its workers have to
        know are written there before they are written to the queue, and their jobs are read there.
    """

    connection: Connection
    stored: StoredTable
    shared: SharedJobs | None = None

    @property
    def heading(self) -> Heading:
        """The queue's attributes."""
        return self.stored.heading

    @property
    def key(self) -> list[str]:
        """The names of the attributes of the queue's key."""
        return self.heading.primary_key

    def now(self) -> datetime:
        """Return the database's time, which all workers share."""
        return as_datetime(self.connection.rows(sa.select(self._now()))[0][0])

    def node(self, *statuses: str, rows: Iterable[Values] | None = None) -> Node:
        """Return the query for the jobs in some statuses, or in any, of some keys or all."""
        return restrict(all_rows(self.stored.name, self.heading), self._condition(statuses, rows))

    def held(self, *statuses: str) -> Node:
        """Return the query for the jobs in some statuses, and for those that are due later."""
        of_status = self._condition(statuses, None)
        return restrict(all_rows(self.stored.name, self.heading), AnyOf((of_status, LATER)))

    def claimable(
        self, rows: Sequence[Values], statuses: Sequence[str], *, without_job: bool
    ) -> list[Values]:
        """Return those of some keys that a worker could claim now.

        Parameters
        ----------
        statuses
            The statuses in which a job may be claimed.
        without_job
            Whether keys that are not in the queue can be claimed, as they get a job then.
        """
        wanted = self._condition(statuses, None)
        condition = (
            AnyOf((Negated(wanted), LATER)) if without_job else All((wanted, Negated(LATER)))
        )
        jobs = fetch.rows(self.connection, restrict(self.node(rows=rows), condition), self.key)
        found = self.by_asked({row: row for row in jobs}, rows)
        return self.free([row for row in rows if (row in found) != without_job], statuses)

    def add(self, rows: Sequence[Values], **columns: object) -> None:
        """Put keys into the queue; jobs that are there stay as they are."""
        shared = {"status": "pending", **columns}
        given = [{**dict(zip(self.key, row, strict=True)), **shared} for row in rows]
        for start in range(0, len(given), CHUNK):
            chunk = given[start : start + CHUNK]
            write.submit(
                self.connection, encode_rows(self.connection, self.stored, chunk, mode="skip")
            )

    def update(
        self, rows: Iterable[Values], statuses: Sequence[str], values: Mapping[str, object]
    ) -> int:
        """Change the jobs of some keys, in the statuses or in any; return their number."""
        target, where = self._where(statuses, rows)
        encoded = self._encoded(values)
        change = sa.update(target).where(where).values(encoded)
        return self.connection.execute(self.connection.backend.along_key(change, target))

    def delete(self, rows: Iterable[Values], statuses: Sequence[str]) -> int:
        """Forget the jobs of some keys, in the statuses or in any; return their number."""
        rows = list(rows)
        target, where = self._where(statuses, rows)
        deleted = self.connection.execute(sa.delete(target).where(where))
        if self.shared is not None and tuple(statuses) == ("reserved",):
            self.shared.release(rows)
        elif self.shared is not None:
            self.shared.forget(rows)
        return deleted

    def claim(
        self, rows: Sequence[Values], statuses: Sequence[str], worker: Worker, lease: float
    ) -> list[Values]:
        """Reserve those of some keys that are free, and return them.

        Jobs are locked while they are looked at, so that only one of several workers gets a key.
        Jobs that another worker looks at in this moment are left out, so that workers do not wait.
        """
        columns = {**worker.columns(), **self._connection_id()}

        def work() -> list[Values]:
            with self.connection.transaction:
                found, now = self._lock(rows, statuses)
                if found and self.shared is not None:
                    found = self.shared.take(found, statuses)
                if found:
                    times = {"reserved_time": now, "scheduled_time": now + timedelta(seconds=lease)}
                    changed = {**FREE, **columns, **times, "status": "reserved"}
                    self.update(found, (), changed)
                return found

        return self.connection.retrying(work)

    def release(self, rows: Iterable[Values]) -> int:
        """Give reservations up, so that the next worker can take the keys; return their number."""
        rows = list(rows)
        return self.freed(rows, self.update(rows, ("reserved",), self._free()))

    def freed(self, rows: Iterable[Values], count: int) -> int:
        """Release given-up reservations for workers of another era too; return the count."""
        if self.shared is not None:
            self.shared.release(rows)
        return count

    def give_back(self, rows: Iterable[Values]) -> int:
        """Give up this process's reservations, but not those of workers that took over from it."""
        rows = list(rows)
        target, where = self._where(("reserved",), rows)
        change = sa.update(target).where(where, *self._mine(target)).values(self._free())
        count = self.connection.execute(self.connection.backend.along_key(change, target))
        if self.shared is not None:
            self.shared.give_back(rows)
        return count

    def renew(self, rows: Iterable[Values], lease: float) -> None:
        """Renew the leases of keys that this process still works on."""
        target, where = self._where(("reserved",), rows)
        until = self._encoded({"scheduled_time": self.now() + timedelta(seconds=lease)})
        values = {**until, **self._connection_id()}
        change = sa.update(target).where(where, *self._mine(target)).values(values)
        self.connection.execute(self.connection.backend.along_key(change, target))

    def complete(self, durations: Mapping[Values, float | None], *, keep: bool) -> None:
        """Forget the jobs of keys that are in their table, or keep them as `success`."""
        if not keep:
            self.delete(durations, ())
            return
        for row, duration in durations.items():
            values = {**self._success(), "duration": duration}
            self.update([row], ("reserved", "pending", "error", "success"), values)
        if self.shared is not None:
            self.shared.forget(durations)

    def end(self, rows: Sequence[Values], statuses: Sequence[str], *, keep: bool) -> int:
        """End jobs of keys that came into their table without them; return their number."""
        if not keep:
            return self.delete(rows, statuses)
        if self.shared is not None:
            self.shared.forget(rows)
        return self.update(rows, statuses, {**FREE, **self._success()})

    def fail(self, row: Values, message: str, stack: str | None, *, own: bool = False) -> None:
        """Keep the error of a job that failed.

        Parameters
        ----------
        own
            Whether to leave a job that another worker has taken over from this process.
        """
        if own and not self._is_own(row):
            return
        message, stack = shortened(_storable(message)), _storable(stack) if stack else stack
        try:
            self._note_failure(row, message, stack)
        except InvalidValueError:
            # A database of latin1 has fewer characters.
            plain = message.encode("ascii", "backslashreplace").decode()
            self._note_failure(row, shortened(plain), stack)

    def _is_own(self, row: Values) -> bool:
        """Whether a job is not reserved by another worker."""
        target, where = self._where(("reserved",), [row])
        select = sa.select(target.c.pid, target.c.host).where(where)
        found = self.connection.rows(select)
        return not found or tuple(found[0]) == (os.getpid(), own_host())

    def _note_failure(self, row: Values, message: str, stack: str | None) -> None:
        if self.shared is not None:
            self.shared.fail(row, message, stack)
        values: dict[str, object] = {
            "status": "error",
            "completed_time": self._now(),
            "error_message": message,
        }
        if stack is not None:
            values["error_stack"] = stack
        self.update([row], ("reserved", "pending", "error"), values)

    def lost(self) -> list[Reservation]:
        """Return the reservations of workers that are gone."""
        names = [*self.key, "host", "pid", "connection_id", "reserved_time", "scheduled_time"]
        reserved = fetch.rows(self.connection, self.node("reserved"), names)
        size = len(self.key)
        held = [Reservation(row[:size], *row[size:]) for row in reserved if row[-2] is not None]
        return dead(self.connection, held, self.now()) if held else []

    def take_back(self, item: Reservation, *, made: bool, keep: bool) -> bool:
        """Free a lost reservation, or end it if its key was made.

        Returns whether the reservation was still there.
        """
        target, where = self._where(("reserved",), [item.row])
        # Since the read, its worker may have renewed it, or another worker claimed the key.
        same = {"pid": item.pid, "host": item.host}
        same |= {"reserved_time": item.since, "scheduled_time": item.until}
        mine = [target.c[name] == value for name, value in self._encoded(same).items()]
        if made and not keep:
            change: sa.Delete | sa.Update = sa.delete(target)
        else:
            values = self._encoded({**FREE, **self._success()} if made else self._free())
            change = sa.update(target).values(values)
        taken = self.connection.execute(change.where(where, *mine)) == 1
        if taken and self.shared is not None:
            self.shared.give_back([item.row], item.host, item.pid)
        return taken

    def free(self, rows: Sequence[Values], statuses: Sequence[str] = ()) -> list[Values]:
        """Return those of some keys that workers of another era do not hold.

        See `SharedJobs.held`.
        """
        held: set[Values] = set() if self.shared is None else self.shared.held(rows, statuses)
        return [row for row in rows if row not in held]

    def by_asked(self, found: Mapping[Values, T], rows: Sequence[Values]) -> dict[Values, T]:
        """Return what was found of some keys by the keys as they were asked for, each once."""
        if found.keys() <= set(rows):
            return dict(found)
        pairs = paired(self.connection, self.node(), self.key, rows, found.keys())
        first = {spelled: row for row, spelled in reversed(pairs.items())}
        return {row: found[spelled] for spelled, row in first.items() if spelled in found}

    def reconcile(self) -> None:
        """Take over changes of the schema's jobs by workers of another era, or in ``schema.jobs``.

        Failed and ignored jobs of this queue that are not there any more become pending again; jobs
        that are only there are added here, with their errors.
        """
        if self.shared is None:
            return
        ended = list(fetch.rows(self.connection, self.node("error", "ignore"), self.key))
        gone, new = self.shared.differing(ended)
        if gone:
            target, where = self._where(("error", "ignore"), gone)
            self.connection.execute(sa.delete(target).where(where))
        for job in new:
            row = tuple(comparable(job.key[name], self.heading[name]) for name in self.key)
            values = {"status": job.status, "error_message": job.message, "error_stack": job.stack}
            priority = self.connection.job_settings.default_priority
            self.add([row], **values, priority=priority, completed_time=self.now())
            self.update([row], ("pending", "success"), values)

    def _connection_id(self) -> dict[str, object]:
        number = self.connection.backend.session_id
        return {} if number is None else {"connection_id": sa.literal_column(number)}

    def _mine(self, target: sa.TableClause) -> list[sa.ColumnElement[bool]]:
        return [target.c.pid == os.getpid(), target.c.host == own_host()]

    def _free(self) -> dict[str, object]:
        return {**FREE, "status": "pending", "scheduled_time": self._now()}

    def _success(self) -> dict[str, object]:
        return {"status": "success", "completed_time": self._now()}

    def _lock(
        self, rows: Sequence[Values], statuses: Sequence[str]
    ) -> tuple[list[Values], datetime]:
        """Return the keys that can be claimed, and the time; lock them for the transaction."""
        target, where = self._where((), rows)
        columns = [self._fetched(target, name) for name in (*self.key, "status", "scheduled_time")]
        select = sa.select(*columns, self._now()).where(where)
        select = self.connection.backend.along_key(select, target)
        found = self.connection.rows(select.with_for_update(skip_locked=True))
        if not found:
            return [], datetime.min
        now = as_datetime(found[0][-1])
        known = {self._decoded(row[: len(self.key)]): row for row in found}
        known = self.by_asked(known, rows)
        free = [
            row
            for row in rows
            if (job := known.get(row)) is not None
            and job[-3] in statuses
            and (job[-3] != "pending" or as_datetime(job[-2]) <= now)
        ]
        return free, now

    def _where(
        self, statuses: Sequence[str], rows: Iterable[Values]
    ) -> tuple[sa.TableClause, sa.ColumnElement[bool]]:
        lowering = Lowering(self.connection.backend)
        target, over = lowering.target(all_rows(self.stored.name, self.heading))
        return target, lowering.where(self._condition(statuses, rows), over, self.heading)

    def _condition(self, statuses: Sequence[str], rows: Iterable[Values] | None) -> Condition:
        conditions: list[Condition] = []
        if rows is not None:
            conditions.append(In(tuple(self.key), tuple(rows)))
        if statuses:
            conditions.append(In(("status",), tuple((status,) for status in statuses)))
        return All(tuple(conditions))

    def _encoded(self, values: Mapping[str, object]) -> dict[str, object]:
        encoded: dict[str, object] = {}
        for name, value in values.items():
            encode = self._encoder(name)
            if encode is not None and value is not None and not isinstance(value, sa.ColumnElement):
                value = encode(value)
            encoded[name] = value
        return encoded

    def _encoder(self, name: str) -> Convert | None:
        kind = self.heading[name].type
        if kind is None:
            return None
        if kind.family is Family.CODEC:
            return self.connection.codecs.get("blob").encode
        return self.connection.backend.encoder(kind)

    def _fetched(self, target: sa.TableClause, name: str) -> sa.ColumnElement[Value]:
        kind = self.heading[name].type
        return self.connection.backend.fetched(target.c[name], kind) if kind else target.c[name]

    def _decoded(self, row: Sequence[object]) -> Values:
        kinds = [self.heading[name].type for name in self.key]
        decoders = [self.connection.backend.decoder(kind) if kind else None for kind in kinds]
        return tuple(d(v) if d else v for v, d in zip(row, decoders, strict=True))

    def _now(self) -> sa.ColumnElement[datetime]:
        return self.connection.backend.now(parse_type("datetime(3)"))


def _storable(text: str) -> str:
    """Return a text without half surrogate pairs, which databases refuse."""
    return text.encode(errors="backslashreplace").decode()


def shortened(message: str) -> str:
    """Return an error's message as a job keeps it, cut as by DataJoint."""
    if len(message) <= MESSAGE_LENGTH:
        return message
    return message[: MESSAGE_LENGTH - len("...truncated")] + "...truncated"


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


def queue_name(table: TableName) -> TableName:
    """Return the name of a computed table's job queue.

    Examples
    --------
    >>> queue_name(TableName("lab", "__spike_sort")).table
    '~~spike_sort'
    """
    return TableName(table.schema, f"~~{table.table.lstrip('_')}")


def planned_key(table: Table) -> list[str]:
    """Return the key of a table's jobs: the part of the table's key that comes from foreign keys.

    If the table's own `key_source` has another key, that key is returned; DataJoint's queue could
    not hold such keys.
    """
    inherited = {name for key in table.foreign_keys if key.primary for name in key.attributes}
    derived = [name for name in table.primary_key if name in inherited]
    if isinstance(table, PopulatedTable) and has_own_key_source(table):
        # An unusable key source raises when it is asked for keys.
        with contextlib.suppress(PopulateError):
            key = own_key_source(table).primary_key
            return derived if set(key) == set(derived) else key
    return derived


def obstacle(table: Table, key: Iterable[str]) -> str:
    """Return why a queue cannot hold keys of a table, an empty text if it can.

    Parameters
    ----------
    key
        The attributes of the keys.
    """
    if taken := [name for name in key if name in _COLUMNS]:
        return f"the attribute {taken[0]} of its key has the name of a column of job queues"
    own, base = table.name, table.name.table.lstrip("_")
    for tier in (Tier.IMPORTED, Tier.COMPUTED):
        other = TableName(own.schema, f"{tier.prefix}{base}")
        if other != own and table.connection.catalog.raw(other) is not None:
            return f"{other} would have the same queue, {queue_name(own)}"
    return ""


def check_reservable(table: Table, key: Iterable[str]) -> None:
    """Refuse keys that a queue cannot hold.

    Raises
    ------
    PopulateError
        See `obstacle`.
    """
    if why := obstacle(table, key):
        raise PopulateError(
            f"{table.name} cannot reserve jobs: {why}. Rename it, or populate without reserve_jobs."
        )


def create_queue(table: Table) -> StoredTable:
    """Create a table's job queue, unless another process has.

    Raises
    ------
    PopulateError
        If the table's keys are not those of other tables, so that they cannot be reserved, or see
        `obstacle`.
    """
    name, key = queue_name(table.name), planned_key(table)
    check_reservable(table, key)
    if not key:
        raise PopulateError(
            f"{table.name} cannot reserve jobs: no attribute of its primary key comes from a "
            "foreign key. Populate it without reserve_jobs, or define key_source."
        )
    types = {attribute: table.heading[attribute].type for attribute in key}
    lines = [f"{attribute} : {kind.text}" for attribute, kind in types.items() if kind is not None]
    schema, plain = table.name
    text = _DEFINITION.format(schema=schema, table=plain, key="\n".join(lines))
    definition = parse_definition(text, table=str(name))

    def no_parents(item: object) -> StoredTable:
        raise PopulateError(f"A job queue has no foreign keys: {item!r}")

    if table.connection.holds_transaction:
        # Another process may have created it. Elsewhere the creation notices, without reading the
        # whole schema anew for each queue: 3 s for the queues of 300 tables on SQLite.
        table.connection.catalog.forget(schema)
    declare.ensure_table(table.connection, name, definition, no_parents)
    stored = table.connection.catalog.find(name)
    if stored is None:
        raise PopulateError(f"The job queue {name} was dropped while it was created: try again.")
    return stored
