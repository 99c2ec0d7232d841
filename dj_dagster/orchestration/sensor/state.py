"""The sensor's state between ticks: detected changes that still need processing.

A tick counts what the sensor keeps in Dagster, to see what people have removed there, and does so
less often where that takes long.

All of it is a hint. The truth is in the tables, their job queues and Dagster's runs; whatever is
lost here, with the code server's process, is found again by looking at everything once.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, DagsterInstance
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.errors import MissingTableError
from dj_dagster.model.names import TableName
from dj_dagster.orchestration._dagster import (
    AssetKeyTable,
    DynamicPartitionsTable,
    RunsTable,
    SqlEventLogStorage,
    SqlRunStorage,
)
from dj_dagster.orchestration.checks import CheckWatch
from dj_dagster.orchestration.runs.event_log import Mark
from dj_dagster.orchestration.runs.run_records import RunBook
from dj_dagster.orchestration.runs.stale_marks import CodeWatch
from dj_dagster.orchestration.sensor.changes import ChangeMarks, Errors, JobWatch, KeyWatch
from dj_dagster.orchestration.sensor.limits import SLOW, Pause, idle_seconds
from dj_dagster.orchestration.sensor.requests import Batch
from dj_dagster.orchestration.sensor.sensor_settings import Waiting
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.keys import EVERYTHING, Key, Region, Regions, own_table
from dj_dagster.orchestration.tables.partitions import Changes
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.job_rows import queue_name
from dj_dagster.workflow.make import has_own_key_source
from dj_dagster.workflow.notes import Inputs
from dj_dagster.workflow.pending import source
from dj_dagster.workflow.populate import queue_of

SHARE = 100
"""How much longer than it took counting is not done again."""

SHORTEST, LONGEST = 3.0, 6.0
"""For how many seconds it is not, at least and at most: ticks with nothing new are to be cheap."""


QUICK = 0.2
"""Seconds up to which counting is quick, on a machine that is not busy with other things."""


@dataclass
class Count:
    """How many lines of one of Dagster's tables there are, up to the last one of now."""

    lines: int = 0
    last: int = 0

    def falls(self, connection: SAConnection, table: sa.Table, *where: Any) -> bool:
        """Count anew, and return whether some of those counted before are gone."""
        id_ = table.c["id"]
        query = sa.select(sa.func.count(), sa.func.max(id_)).select_from(table).where(*where)
        lines, last = connection.execute(query).one()
        left = lines
        if (last or 0) > self.last:
            left = connection.execute(query.where(id_ <= self.last)).one()[0]
        fell = left < self.lines
        self.lines, self.last = lines, last or 0
        return fell


@dataclass
class Losses:
    """Remembers how much of what the sensor keeps in Dagster there was.

    Attributes
    ----------
    partitions
        Number of partitions by grain.
    """

    partitions: dict[Grain, Count] = field(default_factory=dict[Grain, Count])
    _runs: Count = field(default_factory=Count)
    _wiped: dict[str, str] | None = None
    _until: float = 0.0
    _took: float = 0.0

    def look(
        self, instance: DagsterInstance, grains: Iterable[Grain], keys: Sequence[AssetKey]
    ) -> tuple[set[Grain], set[AssetKey]]:
        """Return the grains that lack partitions, and the tables whose events are gone.

        Dagster deletes the events of a run with it, and does not say of which tables they were.
        """
        began, storage = time.monotonic(), instance.event_log_storage
        if began < self._until or not isinstance(storage, SqlEventLogStorage):
            return set(), set()
        with storage.index_connection() as connection:
            lacking = {grain for grain in grains if self._lacks(connection, grain)}
            wiped = self._newly_wiped(connection, {key.to_string(): key for key in keys})
        if self._has_lost_runs(instance):
            wiped = set(keys)
        lines = sum(count.lines for count in (*self.partitions.values(), self._runs))
        self._took = idle_seconds(time.monotonic() - began, lines)
        pause = min(LONGEST, max(SHORTEST, SHARE * self._took))
        self._until = time.monotonic() + pause
        return lacking, wiped

    def recount(self, instance: DagsterInstance, grain: Grain, removed: int) -> bool:
        """Count the partitions of a grain of which the sensor itself has removed some.

        Returns whether others are gone too: a person may remove one while the sensor compares a
        grain with its tables, after it has seen that partition.
        """
        storage = instance.event_log_storage
        if not isinstance(storage, SqlEventLogStorage):
            return False
        self.partitions.setdefault(grain, Count()).lines -= removed
        with storage.index_connection() as connection:
            return self._lacks(connection, grain)

    def hurry(self) -> None:
        """Count in any case the next time, where that is quick: there is more to lose now."""
        if self._took < QUICK:
            self._until = 0.0

    def _lacks(self, connection: SAConnection, grain: Grain) -> bool:
        count = self.partitions.setdefault(grain, Count())
        of_grain = DynamicPartitionsTable.c.partitions_def_name == grain.name
        return count.falls(connection, DynamicPartitionsTable, of_grain)

    def _newly_wiped(self, connection: SAConnection, keys: dict[str, AssetKey]) -> set[AssetKey]:
        # What Dagster keeps beside the events of an asset is when it was wiped.
        columns = AssetKeyTable.c
        query = sa.select(columns.asset_key, columns.asset_details).where(
            columns.asset_details.is_not(None)
        )
        now = {key: str(details) for key, details in connection.execute(query) if key in keys}
        before, self._wiped = self._wiped, now
        if before is None:
            return set()
        return {keys[key] for key, details in now.items() if details != before.get(key)}

    def _has_lost_runs(self, instance: DagsterInstance) -> bool:
        storage = instance.run_storage
        if not isinstance(storage, SqlRunStorage):
            return False
        connected: AbstractContextManager[SAConnection] = storage.connect()
        with connected as connection:
            return self._runs.falls(connection, RunsTable)


class WatchedTables:
    """The tables of one database to watch, in an order in which parents come first.

    Attributes
    ----------
    names
        The tables.
    readers
        By table, those whose keys come from it.
    """

    def __init__(self, nodes: Iterable[TableNode]) -> None:
        found: dict[TableName, None] = {}
        self.readers: dict[TableName, list[TableNode]] = defaultdict(list)
        for node in nodes:
            for parent in sorted(_sources(node)):
                found[parent] = None
                self.readers[parent].append(node)
            found[node.name] = None
            if _has_queue(node):
                found[queue_name(node.name)] = None
        self.names = tuple(found)


@dataclass(frozen=True)
class Hanging:
    """A table whose rows become stale with those of another.

    Attributes
    ----------
    names
        ``{name in the other's key: name here}``; None where any row may be meant.
    """

    node: TableNode
    names: Mapping[str, str] | None


def hanging(nodes: Iterable[TableNode]) -> dict[TableName, list[Hanging]]:
    """Return the tables whose rows become stale with those of others, by these."""
    found: dict[TableName, list[Hanging]] = defaultdict(list)
    for node in (node for node in nodes if node.populated):
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            for name, names in Inputs(node.table, node.maker.key_names).tables():
                found[name].append(Hanging(node, names))
    return found


def renamed_from(reader: TableNode, parent: TableName) -> dict[str, str] | None:
    """Return ``{name in the parent: name here}`` of attributes that keys have from a parent.

    None where a new row of the parent may be followed by any key: with a key source of the user's,
    and where a table refers to the same parent twice, each of whose rows goes with all others.
    """
    table = own_table(reader)
    if table is None or has_own_key_source(table):
        return None
    try:
        foreign_keys = table.foreign_keys
    except MissingTableError:
        # The look at the table itself says that it is gone, under its own name.
        return None
    names = [
        {theirs: ours for ours, theirs in key.attributes.items()}
        for key in foreign_keys
        if key.primary and key.parent == parent
    ]
    return names[0] if len(names) == 1 else None


def _sources(node: TableNode) -> frozenset[TableName]:
    """Return the tables that the keys of a table come from."""
    if not node.populated:
        return frozenset()
    table = own_table(node)
    if table is not None:
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            return source(table).tables
    return frozenset(key.parent for key in node.table.foreign_keys)


def _has_queue(node: TableNode) -> bool:
    if not node.populated or not node.reservable:
        return False
    table = own_table(node)
    if table is None:
        return True
    with contextlib.suppress(Exception):
        return queue_of(table) is not None
    return False


MANY_RANGES = 200

LATE = 30.0
"""Seconds after which a slow look is taken though there are new rows all the time."""


@dataclass
class Watch:
    """Changes found and not dealt with, by table.

    Attributes
    ----------
    code, checks
        What looks for rows of older code, and what evaluates the other checks.
    dirty
        Tables, job queues among them, that may have changed since they were looked at.
    pending
        Where keys may have become pending.
    orphans
        Partitions that are pending below a row which is gone.
    unmarked
        Where rows may lack their marks.
    unsynced
        Grains in which partitions may have to go.
    syncs
        Grains whose partitions are being compared with their tables, piece by piece.
    searches
        Tables whose rows are being searched for those without marks, page by page.
    backlog
        Partitions to mark, found and not written yet.
    aging
        Where rows may have become stale, or not be so any more.
    agings
        Tables of which all rows are looked at for that, page by page.
    unnoted
        Partitions on which there was no note yet, and when to look again.
    doubtful, unproven
        Partitions of which Dagster may show a failure wrongly, or not at all; and tables whose
        failures are all in doubt.
    refuted
        Partitions of the backlog that are shown as failed although their rows are there.
    vanished
        Tables of which rows may be gone that are marked.
    withdrawals
        Tables whose marks are being compared with their rows, piece by piece.
    errors, unread_errors
        Failed keys that wait to be tried again, and tables whose errors are to be read.
    losses
        What was there of what a person may remove.
    asked
        Batches that were asked for, by run key, until their runs are seen.
    runs
        The runs that have not ended.
    swept
        When the last look at everything began.
    unswept
        Tables that it has not come to.
    sweeping
        Seconds that it has taken so far; None if there is none.
    seconds
        What each thing that goes on has taken so far.
    turn
        Counts the pieces of what goes on.
    """

    graph: TableGraph
    code: CodeWatch
    checks: CheckWatch
    dirty: set[TableName] = field(default_factory=set[TableName])
    pending: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    orphans: dict[AssetKey, set[str]] = field(default_factory=lambda: defaultdict(set[str]))
    unmarked: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    unsynced: set[Grain] = field(default_factory=set[Grain])
    syncs: dict[Grain, Iterator[Changes]] = field(default_factory=dict[Grain, Iterator[Changes]])
    searches: dict[AssetKey, Iterator[list[str]]] = field(
        default_factory=dict[AssetKey, Iterator[list[str]]]
    )
    possible: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    backlog: dict[AssetKey, deque[str]] = field(default_factory=lambda: defaultdict(deque[str]))
    aging: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    agings: dict[AssetKey, Iterator[tuple[list[Mark], list[str]]]] = field(
        default_factory=dict[AssetKey, Iterator[tuple[list[Mark], list[str]]]]
    )
    unnoted: dict[AssetKey, tuple[float, set[str]]] = field(
        default_factory=dict[AssetKey, tuple[float, set[str]]]
    )
    doubtful: dict[AssetKey, set[str]] = field(default_factory=lambda: defaultdict(set[str]))
    unproven: set[AssetKey] = field(default_factory=set[AssetKey])
    refuted: dict[AssetKey, set[str]] = field(default_factory=lambda: defaultdict(set[str]))
    losses: Losses = field(default_factory=Losses)
    vanished: set[AssetKey] = field(default_factory=set[AssetKey])
    withdrawals: dict[AssetKey, Iterator[list[str]]] = field(
        default_factory=dict[AssetKey, Iterator[list[str]]]
    )
    asked: dict[str, Batch] = field(default_factory=dict[str, Batch])
    runs: RunBook = field(default_factory=RunBook)
    pauses: dict[Any, Pause] = field(default_factory=lambda: defaultdict(Pause))
    swept: float | None = None
    unswept: set[TableName] = field(default_factory=set[TableName])
    sweeping: float | None = None
    seconds: dict[Any, float] = field(default_factory=lambda: defaultdict(float))
    turn: int = 0
    errors: dict[AssetKey, Waiting] = field(default_factory=lambda: defaultdict(Waiting))
    unread_errors: set[AssetKey] = field(default_factory=set[AssetKey])

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.graph.nodes}
        self._jobs = JobWatch(self.graph)
        self._readers: dict[TableName, list[TableNode]] = {}
        self._hanging: dict[TableName, list[Hanging]] = {}
        self._keys: dict[TableName, KeyWatch] = {}
        self._marks: dict[Connection, ChangeMarks] = {}
        self._connections: dict[TableName, Connection] = {}

    @property
    def connections(self) -> list[Connection]:
        """The databases, each once."""
        return list(dict.fromkeys(node.table.connection for node in self.graph.nodes))

    @property
    def in_order(self) -> list[TableName]:
        """The tables that may have changed, parents first."""
        return [name for name in self._connections if name in self.dirty]

    @property
    def goes_on(self) -> bool:
        """Whether something is left of what takes long."""
        marks = any(self.backlog.values()) or any(self.doubtful.values())
        pages = self.syncs or self.searches or self.agings or self.withdrawals
        return bool(self.unswept or pages or self.unproven or marks)

    def start(self, connection: Connection) -> None:
        """Find out which tables of a database to watch: ours, and those that keys come from."""
        nodes = [node for node in self.graph.nodes if node.table.connection == connection]
        tables = WatchedTables(nodes)
        self._readers.update(tables.readers)
        self._hanging.update(hanging(nodes))
        self._connections.update(dict.fromkeys(tables.names, connection))
        self._marks[connection] = ChangeMarks(connection, tables.names)

    def see_changes(self, connection: Connection) -> None:
        """Ask a database which tables may have changed."""
        if connection not in self._marks:
            self.start(connection)
        self.dirty |= self._marks[connection].changed()

    def sweep(self) -> None:
        """Look at everything anew; new rows at the tables' ends are seen meanwhile."""
        for keys in self._keys.values():
            keys.renew()
        self._jobs.forget()
        for connection in list(self._marks):
            self.start(connection)
        self.dirty.update(self._connections)
        self.unswept = set(self.dirty)
        # Tables with a queue are in doubt once that has been looked at.
        self.unproven |= {n.key for n in self.graph.populated if n.grain and not n.reservable}
        self.code.recount()
        self.swept, self.sweeping = time.monotonic(), 0.0

    def connection_of(self, name: TableName) -> Connection:
        """Return the database of a watched table."""
        return self._connections[name]

    def look(self, name: TableName) -> bool:
        """Find the new rows at a table's end, or the free jobs of a queue.

        Returns whether there are rows, which a slow comparison should not hold up.
        """
        if name in self._jobs:
            node = self._jobs.node(name)
            if not self._jobs.seen(name) and node.grain is not None:
                self.unproven.add(node.key)
            freed, turned = self._jobs.look(name)
            self.pending[node.key].add(freed)
            self.doubtful[node.key] |= turned
            if turned:
                self.checks.note(node.key)
            self.unread_errors.add(node.key)
            if self._jobs.complete(name):
                self._seen(name)
            return False
        keys = self._keys.get(name)
        if keys is None:
            values = self._is_read(name)
            keys = self._keys[name] = KeyWatch(self._connections[name], name, values=values)
        appended = keys.appended()
        if appended:
            self._changed(name, Region(keys=tuple(appended)))
        return bool(appended)

    def rows(self, *nodes: TableNode) -> int:
        """Return how many rows some tables and those that their keys come from have."""
        names = {node.name for node in nodes}
        for name, readers in self._readers.items():
            if any(node.name == reader.name for reader in readers for node in nodes):
                names.add(name)
        return sum(self._keys[name].rows for name in names if name in self._keys)

    def comparable(self, *, busy: bool) -> list[TableName]:
        """Return the tables in which to find what else has changed, the longest unseen first.

        Left out are those that take long and were compared just now.

        Parameters
        ----------
        busy
            Whether there is work already, so that what takes long is left to the next tick.
        """
        now = time.monotonic()
        found = [
            name
            for name in self.in_order
            if (keys := self._keys.get(name)) is not None
            and self.pauses[name].over
            and not (busy and keys.seconds > SLOW and now < keys.compared + LATE)
        ]
        return sorted(found, key=lambda name: self._keys[name].compared)

    def compare(self, name: TableName) -> None:
        """Find what has changed in a table beside rows at its end."""
        keys = self._keys[name]
        found = keys.compare()
        self._seen(name)
        self.pauses[name].took(keys.seconds)
        if found is not None:
            self._changed(name, found.region, new=found.keys, gone=found.keys, rewritten=True)

    def see_losses(self, instance: DagsterInstance) -> None:
        """Look again at what people have removed in Dagster."""
        graph = self.graph
        grains, keys = self.losses.look(instance, graph.grains, [n.key for n in graph.nodes])
        self.unsynced |= grains
        for key in keys:
            self.checks.note(key)
            self.unmarked[key].add(EVERYTHING)
            if graph.by_key[key].populated and graph.by_key[key].grain is not None:
                self.unproven.add(key)

    def free_dead(self, connection: Connection) -> None:
        """Have the keys made again whose worker died."""
        for node, region in self._jobs.free_dead(connection):
            self.pending[node.key].add(region)

    def errors_of(self, node: TableNode) -> Errors:
        """Return the failed jobs of a table, by partition."""
        return self._jobs.errors(node)

    def retry(self, node: TableNode, keys: Iterable[Key]) -> None:
        """Look at keys again: their run has ended, or they are to be tried once more."""
        found = Region(keys=tuple(keys))
        self.checks.note(node.key)
        self.pending[node.key].add(found)
        if node.grain is not None:
            names, keys = set(node.grain.names), found.keys or ()
            told = (key for key in keys if names <= key.keys())
            self.doubtful[node.key].update(map(node.grain.encode, told))
        self.unmarked[node.key].add(found)
        for part in self.graph.parts(node):
            self.unmarked[part.key].add(found)

    def retry_all(self, node: TableNode) -> None:
        """Look at all keys of a table again."""
        self.checks.note(node.key)
        self.pending[node.key].add(EVERYTHING)
        self.unmarked[node.key].add(EVERYTHING)
        self.doubtful[node.key].update(self._jobs.errors(node))

    def retry_batch(self, batch: Batch) -> None:
        """Look again at what a run was to make."""
        for node in batch.nodes:
            if node.grain is None:
                self.retry_all(node)
            else:
                self.retry(node, map(node.grain.decode, batch.partitions))

    def retry_orphans(self, grain: Grain) -> None:
        """Look again at what is pending below orphans: their parents may be there again."""
        for node in self.graph.of_grain(grain):
            if partitions := self.orphans.pop(node.key, None):
                self.pending[node.key].add(Region(keys=tuple(map(grain.decode, partitions))))

    def _seen(self, name: TableName) -> None:
        self.dirty.discard(name)
        self.unswept.discard(name)

    def _is_read(self, name: TableName) -> bool:
        """Whether anything follows from other values than keys: from those that people entered."""
        node = self._nodes.get(name)
        entered = node is None or not (node.populated or node.master is not None)
        return entered or bool(self._readers.get(name) or self._hanging.get(name))

    def _changed(
        self,
        name: TableName,
        region: Region,
        *,
        new: bool = True,
        gone: bool = False,
        rewritten: bool = False,
    ) -> None:
        """Note what follows from a change in a region.

        Parameters
        ----------
        new, gone
            Whether there may be keys that were not there, and fewer than there were.
        rewritten
            Whether rows may have other values than they had.
        """
        if len(region.ranges) > MANY_RANGES:
            region = EVERYTHING
        node = self._nodes.get(name)
        if node is not None:
            self.checks.note(node.key)
            self.checks.note(node.master)
        if node is not None and new:
            self.unmarked[node.key].add(region)
            if node.grain is not None:
                self.possible[node.key].add(region)
                if gone:
                    self.unsynced.add(node.grain)
                    self.vanished.add(node.key)
            if node.populated and gone:
                self.pending[node.key].add(region)
        if gone:
            self.dirty.update(self._jobs.failing_below(name))
        if node is not None and node.populated:
            self.aging[node.key].add(region)
        for each in self._hanging.get(name, ()):
            found = EVERYTHING if each.names is None else region.renamed(each.names)
            self.aging[each.node.key].add(found)
        for reader in self._readers.get(name, ()):
            # A table which keys come from has changed.
            names = renamed_from(reader, name)
            if names is not None and not new:
                # Its keys come from the keys alone.
                continue
            found = EVERYTHING if names is None else region.renamed(names)
            self.checks.note(reader.key)
            self.pending[reader.key].add(found)
            self.possible[reader.key].add(found)
            if (gone or rewritten) and reader.grain is not None:
                self.unsynced.add(reader.grain)
