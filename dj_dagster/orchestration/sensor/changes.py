"""Changes in the database, by table, by row, and by job of a queue.

`Backend.write_marks` tells that a table was written. Triggers would tell more. They are not used:
they need rights that few users of a server have, and the tables belong to other people, whose
inserts triggers would slow down, and whose dumps would contain them.

New rows most often come last in the order of the key, or in the order of the rows where the
database keeps one. These are found in the time that it takes to read them. Other changes are found
by digests of the rows, over a thousand or so ranges of the key. Numbers of rows and sums of keys
would not do: two changes can leave both as they were.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from dj_dagster.errors import MissingTableError
from dj_dagster.model.heading import Attribute, Heading, Values
from dj_dagster.model.names import TableName
from dj_dagster.orchestration.sensor.sensor_settings import Pause, idle_seconds
from dj_dagster.orchestration.tables.partitions import (
    EVERYTHING,
    Key,
    Region,
    own_table,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.algebra.operators import all_rows
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.fetching.decode import RowDecoder
from dj_dagster.relational.sql.lowering import Lowering
from dj_dagster.workflow.job_rows import queue_name
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.pending import (
    RANGES,
    Digests,
    Ranges,
    digested,
    digests,
    extent,
    is_integer,
    present,
    whole,
)


class ChangeMarks:
    """A watch on the tables of one database for commits of any client.

    Parameters
    ----------
    names
        The tables, and views. One that does not exist yet counts as changed once it is there.
    """

    def __init__(self, connection: Connection, names: Collection[TableName]) -> None:
        self._connection = connection
        # The tables whose marks tell of each; none for a view whose tables are not known.
        self._told_by = {name: self._behind(name) for name in names}
        tables = set[TableName]().union(*self._told_by.values())
        self._marks = connection.backend.write_marks(connection.engine, tables)

    def changed(self) -> frozenset[TableName]:
        """Return the tables that may have changed since the last call; all at the first call.

        Raises
        ------
        ConnectionFailedError
            If the database cannot be reached.
        """
        written = self._marks.written(self._connection.read)
        told = self._told_by.items()
        return frozenset(name for name, by in told if not by or written.intersection(by))

    def _behind(self, name: TableName) -> set[TableName]:
        stored = self._connection.catalog.find(name)
        if stored is not None and not stored.is_view:
            return {name}
        # A missing name may be a view of tables that are gone for now.
        backend = self._connection.backend
        return self._connection.read(lambda session: backend.tables_behind(session, name))


MOST_RANGES = 8 * RANGES
MERGED = 8

AT_ONCE = 10_000
"""Rows at the end that are read one by one, at most."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """The region in which a table has changed.

    Attributes
    ----------
    keys
        Whether keys have come or gone; otherwise only other values have changed.
    """

    region: Region
    keys: bool


@dataclass(frozen=True)
class _Row:
    """One row: its place in the order of rows, its key as the driver gives it, and its digests."""

    place: Values
    key: Values
    digests: Digests


class KeyWatch:
    """A watch on the rows of a table, which compares them with their last state.

    Only digests are held, in memory: after a restart the whole table counts as changed.

    Parameters
    ----------
    values
        Whether other values than keys count, except bytes that the table itself holds.

    Attributes
    ----------
    seconds
        The seconds that the last comparison took, see `idle_seconds`.
    compared
        The time at which it ended, by `time.monotonic`.
    """

    def __init__(self, connection: Connection, name: TableName, *, values: bool = True) -> None:
        self._connection = connection
        self._name = name
        self._values = values
        self._row_order = connection.backend.row_order
        self._last: _Row | None = None
        self._ranges: Ranges | None = None
        self._digests: dict[int, Digests] | None = None
        self._replaced = False
        self.seconds = 0.0
        self.compared = 0.0

    @property
    def rows(self) -> int:
        """The number of rows that the table had at the last look."""
        return sum(each.count for each in (self._digests or {}).values())

    def appended(self) -> list[Key] | None:
        """Return the keys of new rows at the end, None if there are too many to read.

        Other rows may have changed too: see `compare`.
        """
        if self._digests is None:
            return []
        if self._row_order and self._last is not None and self._read(self._last) != self._last:
            # The last row has changed or is gone, and another may have taken its place.
            return []
        rows = self._after(self._last)
        if len(rows) > AT_ONCE:
            self._replaced = True
            return None
        if rows:
            self._last = rows[-1]
            self._count(rows)
        return self._keys(rows)

    def renew(self) -> None:
        """Have the next comparison begin anew, and return everything as changed."""
        self._replaced = True

    def compare(self) -> Difference | None:
        """Return the changes since the last comparison that `appended` did not return, or None.

        At the first comparison everything has changed.
        """
        began = time.monotonic()
        first = self._digests is None or self._replaced
        # The end is read before the digests: rows that come in between are read once more.
        last = self._read_last()
        if first:
            self._ranges = self._choose_ranges()
        digests = self._read_digests()
        before, self._digests, self._last = self._digests or {}, digests, last
        self._replaced = False
        self.compared = time.monotonic()
        self.seconds = idle_seconds(self.compared - began, self.rows)
        if first:
            return Difference(EVERYTHING, keys=True)
        none = Digests()
        changed = {
            number: old
            for number in sorted({*before, *digests})
            if (old := before.get(number, none)) != digests.get(number, none)
        }
        new = [digests.get(number, none) for number in changed]
        region = self._region(list(changed))
        self._merge()
        if not changed:
            return None
        keys = any(
            (a.count, a.keys) != (b.count, b.keys)
            for a, b in zip(changed.values(), new, strict=True)
        )
        return Difference(region, keys)

    def _heading(self) -> Heading:
        stored = self._connection.catalog.find_anew(self._name)
        if stored is None:
            raise LookupError(f"The table {self._name} is gone.")
        return stored.heading

    def _node(self) -> Node:
        return all_rows(self._name, self._heading())

    def _attributes(self) -> list[Attribute]:
        heading = self._heading()
        return [heading[name] for name in heading.primary_key]

    def _parts(self, heading: Heading) -> list[list[str]]:
        """Return the attributes that each digest covers: first those of the key, then all."""
        parts = [heading.primary_key]
        if self._values and len(heading.names) > len(heading.primary_key):
            parts.append(heading.names)
        return [part for part in parts if part]

    def _rows(
        self, *, after: _Row | None = None, at: _Row | None = None, last: bool = False
    ) -> list[_Row]:
        """Return rows in their order: those behind a row, those in its place, or the last one."""
        backend, node = self._connection.backend, self._node()
        lowered, heading = Lowering(backend).lower(node), node.heading
        keys = [lowered.columns[name] for name in heading.primary_key]
        if not keys:
            return []
        order = [sa.literal_column(self._row_order)] if self._row_order else keys
        # A single text that is not UTF-8 would otherwise be an error of the whole query.
        values = [backend.undecoded(column) for column in keys]
        parts = (digested(lowered.columns, heading, part) for part in self._parts(heading))
        columns = [*order, *values, *map(backend.row_digest, parts)]
        select = sa.select(*columns).select_from(lowered.source)
        if last:
            select = select.order_by(*[column.desc() for column in order]).limit(1)
        else:
            select = select.order_by(*order).limit(AT_ONCE + 1)
        if after is not None:
            select = select.where(backend.is_beyond(order, after.place))
        if at is not None:
            select = select.where(order[0] == at.place[0])
        ends = len(order), len(order) + len(keys)
        return [
            _Row(
                tuple(row[: ends[0]]),
                backend.legible(row[ends[0] : ends[1]]),
                Digests(1, *map(int, row[ends[1] :])),
            )
            for row in self._connection.rows(select)
        ]

    def _read_last(self) -> _Row | None:
        rows = self._rows(last=True)
        return rows[0] if rows else None

    def _read(self, row: _Row) -> _Row | None:
        rows = self._rows(at=row)
        return rows[0] if rows else None

    def _after(self, last: _Row | None) -> list[_Row]:
        return self._rows(after=last)

    def _keys(self, rows: Sequence[_Row]) -> list[Key]:
        """Return the keys of rows, without those that are not values of their types."""
        heading = self._heading()
        names = heading.primary_key
        decoder = RowDecoder(self._connection, heading, names)
        found, errors = decoder.readable([row.key for row in rows])
        for error in errors:
            _log.warning("A key is left out: %s", error)
        return [dict(zip(names, values, strict=True)) for values in found]

    def _choose_ranges(self) -> Ranges | None:
        attributes = self._attributes()
        if not attributes or not is_integer(attributes[0]):
            return None
        found = extent(self._connection, self._node(), attributes[0].name)
        return Ranges.over(*(found or (0, 0)))

    def _read_digests(self) -> dict[int, Digests]:
        node = self._node()
        return digests(self._connection, node, self._ranges, *self._parts(node.heading))

    def _count(self, rows: Sequence[_Row]) -> None:
        """Add new rows to the digests, as if they had been there at the last comparison."""
        digests = self._digests if self._digests is not None else {}
        for row in rows:
            number = self._ranges.number_of(whole(row.key[0])) if self._ranges is not None else 0
            digests[number] = digests.get(number, Digests()) + row.digests

    def _merge(self) -> None:
        digests = self._digests or {}
        if self._ranges is None or len(digests) <= MOST_RANGES:
            return
        numbers, self._ranges = Ranges(MERGED), Ranges(MERGED * self._ranges.width)
        merged: dict[int, Digests] = {}
        for number, each in digests.items():
            wider = numbers.number_of(number)
            merged[wider] = merged.get(wider, Digests()) + each
        self._digests = merged

    def _region(self, numbers: Sequence[int]) -> Region:
        if self._ranges is None:
            return EVERYTHING
        first = self._attributes()[0].name
        return Region(name=first, ranges=tuple(map(self._ranges.bounds, numbers)))


HELD = ("error", "ignore", "reserved")


class Job(NamedTuple):
    """A job that holds its key: its status, the time of its end if any, the time when it is due.

    A pending job holds its key if it is due later.
    """

    status: str
    ended: datetime | None
    due: datetime


Errors = Mapping[str, Sequence[Values]]
"""The failed jobs of a table, by partition."""


class JobWatch:
    """A watch on the job queues of some tables and the keys that they hold."""

    def __init__(self, graph: TableGraph) -> None:
        self._nodes = {queue_name(node.name): node for node in graph.populated}
        self._entered = {queue: graph.entered_above(node) for queue, node in self._nodes.items()}
        self._jobs: dict[TableName, dict[Values, Job]] = {}
        self._errors: dict[TableName, Errors] = {}
        self._pauses: dict[TableName, Pause] = defaultdict(Pause)
        self._incomplete: set[TableName] = set()
        # The time when the first pending job of a queue is due, by `time.monotonic`.
        self._due: dict[TableName, float] = {}

    def __contains__(self, name: TableName) -> bool:
        return name in self._nodes

    def node(self, name: TableName) -> TableNode:
        """Return the table of the queue of this name."""
        return self._nodes[name]

    def seen(self, name: TableName) -> bool:
        """Whether a queue was looked at since the last call of `forget`."""
        return name in self._jobs

    def errors(self, node: TableNode) -> Errors:
        """Return the failed jobs of a table at the last look at its queue."""
        return self._errors.get(queue_name(node.name), {})

    def due(self) -> set[TableName]:
        """Return the queues in which jobs have become due since the last look at them."""
        now = time.monotonic()
        return {name for name, then in self._due.items() if then <= now}

    def complete(self, name: TableName) -> bool:
        """Whether the last look at a queue did all its work."""
        return name not in self._incomplete

    def failing_below(self, name: TableName) -> list[TableName]:
        """Return the queues with failed jobs whose keys come, in part, from this entered table."""
        return [
            queue
            for queue, entered in self._entered.items()
            if self._errors.get(queue) and any(node.name == name for node in entered)
        ]

    def look(self, name: TableName) -> tuple[Region, set[str]]:
        """Look at a queue, and end its jobs of keys that are made, or that people have taken back.

        Jobs of made keys are left behind where a worker was killed, or a key was made without the
        queue. A key that people take back and enter again is a new one, which has not failed.

        Returns
        -------
        tuple
            The region of keys that the queue held before and that are free now, and the partitions
            in which keys have failed, or have lost their errors.
        """
        node, before = self._nodes[name], self._jobs.get(name, {})
        queue, pause, began = JobQueue(node.table), self._pauses[name], time.monotonic()
        own = own_table(node) is not None
        clean = own and pause.over
        if clean:
            queue.end_made()
        # DataJoint declares the queue of one of its tables when it first fills the table.
        there = own or queue.connection.catalog.find(name) is not None
        jobs = self._jobs[name] = _held(queue) if there else {}
        self._note_due(name, queue, jobs)
        if clean:
            for row in self._taken_back(name, queue, _failed(jobs)):
                del jobs[row]
            pause.after(began, len(jobs))
        if clean or not own:
            self._incomplete.discard(name)
        else:
            self._incomplete.add(name)
        failed, failed_before = _failed(jobs), _failed(before)
        self._errors[name] = _by_partition(node, queue, failed)
        # A key that has failed again has another time.
        turned = {row for row, _ in failed.items() ^ failed_before.items()}
        freed = (row for row in before if row not in jobs)
        return _region(queue, freed) if own else EVERYTHING, {*_by_partition(node, queue, turned)}

    def free_dead(self, connection: Connection) -> Iterator[tuple[TableNode, Region]]:
        """Make the keys pending again whose worker died, and yield their tables and regions."""
        for name, jobs in self._jobs.items():
            node = self._nodes[name]
            reserved = any(job.status == "reserved" for job in jobs.values())
            if own_table(node) is not None and node.table.connection == connection and reserved:
                # The look at the queue itself reports that the queue is gone.
                with suppress(MissingTableError):
                    queue = JobQueue(node.table)
                    yield node, _region(queue, queue.free_lost())

    def _note_due(self, name: TableName, queue: JobQueue, jobs: Mapping[Values, Job]) -> None:
        later = [job.due for job in jobs.values() if job.status == "pending"]
        if later:
            left = (min(later) - queue.rows.now()).total_seconds()
            self._due[name] = time.monotonic() + left
        else:
            self._due.pop(name, None)

    def _taken_back(
        self, name: TableName, queue: JobQueue, failed: Collection[Values]
    ) -> Collection[Values]:
        """End the failed jobs of keys that people have taken back, and return them."""
        gone = queue.vanished() if failed and self._entered[name] else []
        found: dict[Values, None] = {}
        for node in self._entered[name] if gone else ():
            names = _key_names(node, queue)
            rows = _by_key(names, queue, gone)
            for key in rows.keys() - present(node.table, names, list(rows)):
                found.update(dict.fromkeys(row for row in rows[key] if row in failed))
        if found:
            queue.rows.delete(found, ("error",))
        return found

    def forget(self) -> None:
        """Have the queues looked at as if for the first time."""
        self._jobs.clear()


def _region(queue: JobQueue, rows: Iterable[Values]) -> Region:
    names = queue.rows.key
    return Region(keys=tuple(dict(zip(names, row, strict=True)) for row in rows))


def _held(queue: JobQueue) -> dict[Values, Job]:
    rows, size = queue.rows, len(queue.rows.key)
    names = [*rows.key, "status", "completed_time", "scheduled_time"]
    found = fetch.rows(rows.connection, rows.held(*HELD), names)
    return {tuple(row[:size]): Job(*row[size:]) for row in found}


def _failed(jobs: Mapping[Values, Job]) -> dict[Values, datetime | None]:
    return {row: job.ended for row, job in jobs.items() if job.status == "error"}


def _key_names(node: TableNode, queue: JobQueue) -> list[str]:
    """Return the key of an entered table, or of its grain where the queue's key lacks that."""
    names, known = node.table.primary_key, set(queue.rows.key)
    coarse = list(node.grain.names) if node.grain is not None else []
    return next((each for each in (names, coarse) if each and set(each) <= known), [])


def _by_key(
    names: Sequence[str], queue: JobQueue, rows: Iterable[Values]
) -> dict[Values, list[Values]]:
    """Return rows of a queue by the key of an entered table, empty without its names."""
    found: dict[Values, list[Values]] = {}
    places = list(map(queue.rows.key.index, names))
    for row in rows if places else ():
        found.setdefault(tuple(row[place] for place in places), []).append(row)
    return found


def _by_partition(node: TableNode, queue: JobQueue, rows: Collection[Values]) -> Errors:
    """Return rows of a queue by partition, empty if the queue's key does not have the grain's."""
    found: dict[str, list[Values]] = {}
    names, grain = queue.rows.key if rows else [], node.grain
    if grain is not None and set(grain.names) <= set(names):
        keys = [dict(zip(names, row, strict=True)) for row in rows]
        for partition, row in zip(node.partitions_of(keys), rows, strict=True):
            found.setdefault(partition, []).append(row)
    return found
