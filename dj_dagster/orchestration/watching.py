"""What the sensor remembers from tick to tick: what has changed and is still to be dealt with.

All of it is a hint. The truth is in the tables, their job queues and Dagster's runs; whatever is
lost here, with the code server's process, is found again by looking at everything once.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import AssetKey

from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.change_marks import ChangeMarks
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.key_watch import KeyWatch
from dj_dagster.orchestration.reconcile import own_table
from dj_dagster.orchestration.regions import EVERYTHING, Key, Region, Regions
from dj_dagster.orchestration.requests import Batch
from dj_dagster.orchestration.retries import Waiting
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.orchestration.unfinished import RunBook
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.job_table import queue_name
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.make import has_own_key_source
from dj_dagster.workflow.pending import source
from dj_dagster.workflow.populate import queue_of

SHARE = 20
"""How much longer than it took a slow look is not taken again: 5 % of the time is spent on it."""

SLOW = 0.05
"""Seconds from which a look is slow."""

MANY_RANGES = 200


@dataclass
class Pause:
    """Keeps what is slow from being done all the time."""

    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() >= self.until

    def after(self, began: float) -> None:
        """Take note of what began then and has ended now."""
        now = time.monotonic()
        if now - began > SLOW:
            self.until = now + SHARE * (now - began)


@dataclass
class Watch:
    """Changes found and not dealt with, by table.

    Attributes
    ----------
    dirty
        Tables, job queues among them, that may have changed since they were looked at.
    pending
        Where keys may have become pending.
    unmarked
        Where rows may lack their marks.
    unsynced
        Grains in which partitions may have to go.
    backlog
        Partitions to mark, found and not written yet.
    errors, unread_errors
        Failed keys that wait to be tried again, and tables whose errors are to be read.
    asked
        Batches that were asked for, by run key, until their runs are seen.
    runs
        The runs that have not ended.
    """

    graph: TableGraph
    dirty: set[TableName] = field(default_factory=set[TableName])
    pending: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    unmarked: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    unsynced: set[Grain] = field(default_factory=set[Grain])
    possible: dict[AssetKey, Regions] = field(default_factory=lambda: defaultdict(Regions))
    backlog: dict[AssetKey, deque[str]] = field(default_factory=lambda: defaultdict(deque[str]))
    asked: dict[str, Batch] = field(default_factory=dict[str, Batch])
    runs: RunBook = field(default_factory=RunBook)
    pauses: dict[Any, Pause] = field(default_factory=lambda: defaultdict(Pause))
    swept: float | None = None
    errors: dict[AssetKey, Waiting] = field(default_factory=lambda: defaultdict(Waiting))
    unread_errors: set[AssetKey] = field(default_factory=set[AssetKey])

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.graph.nodes}
        self._queues = {queue_name(node.name): node for node in self.graph.populated}
        self._readers: dict[TableName, list[TableNode]] = defaultdict(list)
        self._keys: dict[TableName, KeyWatch] = {}
        self._jobs: dict[TableName, dict[tuple[Any, ...], str]] = {}
        self._marks: dict[Connection, ChangeMarks] = {}
        self._connections: dict[TableName, Connection] = {}

    @property
    def connections(self) -> list[Connection]:
        """The databases, each once."""
        return list(dict.fromkeys(node.table.connection for node in self.graph.nodes))

    def start(self, connection: Connection) -> None:
        """Find out which tables of a database to watch: ours, and those that keys come from."""
        names: set[TableName] = set()
        for node in self.graph.nodes:
            if node.table.connection != connection:
                continue
            names.add(node.name)
            for parent in _sources(node):
                names.add(parent)
                if node not in self._readers[parent]:
                    self._readers[parent].append(node)
            if _has_queue(node):
                names.add(queue_name(node.name))
        self._connections.update(dict.fromkeys(names, connection))
        self._marks[connection] = ChangeMarks(connection, names)

    def see_changes(self, connection: Connection) -> None:
        """Ask a database which tables may have changed."""
        if connection not in self._marks:
            self.start(connection)
        self.dirty |= self._marks[connection].changed()

    def sweep(self) -> None:
        """Begin anew: look at everything."""
        self._keys.clear()
        self._jobs.clear()
        for connection in list(self._marks):
            self.start(connection)
        self.dirty.update(self._connections)
        self.swept = time.monotonic()

    def connection_of(self, name: TableName) -> Connection:
        """Return the database of a watched table."""
        return self._connections[name]

    def look(self, name: TableName) -> bool:
        """Find the new rows at a table's end, or the free jobs of a queue.

        Returns whether there are rows, which a slow comparison should not hold up.
        """
        if name in self._queues:
            self._look_at_jobs(name, self._queues[name])
            self.dirty.discard(name)
            return False
        keys = self._keys.get(name)
        if keys is None:
            keys = self._keys[name] = KeyWatch(self._connections[name], name)
        appended = keys.appended()
        if appended:
            self._changed(name, Region(keys=tuple(appended)), gone=False)
        return bool(appended)

    def compare(self, name: TableName, *, busy: bool) -> None:
        """Find what else has changed in a table, unless it takes long and was done just now.

        Parameters
        ----------
        busy
            Whether there is work already, so that what takes long is left to the next tick.
        """
        keys, pause = self._keys.get(name), self.pauses[name]
        if keys is None or name not in self.dirty or not pause.over:
            return
        if busy and keys.seconds > SLOW:
            return
        began = time.monotonic()
        region = keys.compare()
        self.dirty.discard(name)
        pause.after(began)
        if region is not None:
            self._changed(name, region, gone=True)

    def free_dead(self, connection: Connection) -> None:
        """Have the keys made again whose worker died."""
        for name, jobs in self._jobs.items():
            if self._connections[name] == connection and "reserved" in jobs.values():
                queue = JobQueue(self._queues[name].table)
                freed = queue.rows.release_dead()
                self._jobs_gone(self._queues[name], queue, freed)

    def retry(self, node: TableNode, keys: Iterable[Key]) -> None:
        """Look at keys again: their run has ended, or they are to be tried once more."""
        found = Region(keys=tuple(keys))
        self.pending[node.key].add(found)
        self.unmarked[node.key].add(found)
        for part in self.graph.parts(node):
            self.unmarked[part.key].add(found)

    def retry_all(self, node: TableNode) -> None:
        """Look at all keys of a table again."""
        self.pending[node.key].add(EVERYTHING)
        self.unmarked[node.key].add(EVERYTHING)

    def retry_batch(self, batch: Batch) -> None:
        """Look again at what a run was to make."""
        for node in batch.nodes:
            if node.grain is None:
                self.retry_all(node)
            else:
                self.retry(node, map(node.grain.decode, batch.partitions))

    def _changed(self, name: TableName, region: Region, *, gone: bool) -> None:
        """Note what follows from new rows in a region, and from those `gone` from it."""
        if len(region.ranges) > MANY_RANGES:
            region = EVERYTHING
        node = self._nodes.get(name)
        if node is not None:
            self.unmarked[node.key].add(region)
            if node.grain is not None:
                self.possible[node.key].add(region)
                if gone:
                    self.unsynced.add(node.grain)
            if node.populated and gone:
                self.pending[node.key].add(region)
        for reader in self._readers[name]:
            self._changed_source(reader, name, region, gone=gone)

    def _changed_source(
        self, reader: TableNode, parent: TableName, region: Region, *, gone: bool
    ) -> None:
        """Note that a table which keys come from has changed."""
        found = EVERYTHING
        table = own_table(reader)
        if table is not None and not has_own_key_source(table):
            names = [
                {theirs: ours for ours, theirs in key.attributes.items()}
                for key in table.foreign_keys
                if key.primary and key.parent == parent
            ]
            # Twice the same parent: each new row goes with all rows in the other place.
            found = region.renamed(names[0]) if len(names) == 1 else EVERYTHING
        self.pending[reader.key].add(found)
        self.possible[reader.key].add(found)
        if gone and reader.grain is not None:
            self.unsynced.add(reader.grain)

    def _look_at_jobs(self, name: TableName, node: TableNode) -> None:
        """Find the keys that are free again: their error was cleared, or they were given back."""
        if own_table(node) is None:
            self.pending[node.key].add(EVERYTHING)
            return
        queue = JobQueue(node.table)
        held = ("error", "ignore", "reserved")
        names = [*queue.rows.key, "status"]
        jobs = {
            tuple(job[n] for n in names[:-1]): str(job["status"])
            for job in (queue & [{"status": status} for status in held]).to_dicts()
        }
        self.unread_errors.add(node.key)
        before = self._jobs.get(name, {})
        self._jobs[name] = jobs
        self._jobs_gone(node, queue, [row for row in before if row not in jobs])

    def _jobs_gone(self, node: TableNode, queue: JobQueue, rows: Iterable[tuple[Any, ...]]) -> None:
        names = queue.rows.key
        keys = tuple(dict(zip(names, row, strict=True)) for row in rows)
        self.pending[node.key].add(Region(keys=keys))


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
