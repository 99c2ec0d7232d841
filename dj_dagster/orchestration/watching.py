"""What the sensor remembers from tick to tick: what has changed and is still to be dealt with.

All of it is a hint. The truth is in the tables, their job queues and Dagster's runs; whatever is
lost here, with the code server's process, is found again by looking at everything once.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dagster import AssetKey, DagsterInstance

from dj_dagster.model.names import TableName
from dj_dagster.orchestration.change_marks import ChangeMarks
from dj_dagster.orchestration.checks import CheckWatch
from dj_dagster.orchestration.events import Mark
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.job_watch import Errors, JobWatch
from dj_dagster.orchestration.key_watch import KeyWatch
from dj_dagster.orchestration.losses import Losses
from dj_dagster.orchestration.outdated import CodeWatch
from dj_dagster.orchestration.pauses import SLOW, Pause
from dj_dagster.orchestration.regions import EVERYTHING, Key, Region, Regions
from dj_dagster.orchestration.registered import Changes
from dj_dagster.orchestration.requests import Batch
from dj_dagster.orchestration.retries import Waiting
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.orchestration.unfinished import RunBook
from dj_dagster.orchestration.watched import Hanging, WatchedTables, hanging, renamed_from
from dj_dagster.relational.database.connection import Connection

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
