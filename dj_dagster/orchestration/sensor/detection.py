"""Detection of changes in tables and job queues, and of the tables that the changes concern."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from dj_dagster.errors import MissingTableError
from dj_dagster.model.names import NOTES_TABLE, TableName
from dj_dagster.orchestration.sensor.changes import ChangeMarks, Errors, JobWatch, KeyWatch
from dj_dagster.orchestration.sensor.sensor_settings import SLOW, Guard, Pause
from dj_dagster.orchestration.sensor.transitions import Event
from dj_dagster.orchestration.tables.partitions import EVERYTHING, Region, own_table
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.job_rows import queue_name
from dj_dagster.workflow.make import KeySource, has_own_key_source
from dj_dagster.workflow.notes import Inputs
from dj_dagster.workflow.populate import queue_of

MANY_RANGES = 200

LATE = 30.0
"""Seconds after which a slow look is taken although new rows keep coming."""


class Detection:
    """Tables and job queues that may have changed, and the changes found in them.

    Parameters
    ----------
    table_changed
        Called with an event, a table and the region of its rows that have changed.
    queue_changed
        Called with an event in the job queue of a table, or in the notes on its rows, the table,
        and the region of the keys.

    Attributes
    ----------
    dirty
        Tables, including job queues, that may have changed since the last look at them.
    """

    def __init__(
        self,
        graph: TableGraph,
        table_changed: Callable[[Event, TableName, Region], None],
        queue_changed: Callable[[Event, TableNode, Region], None],
    ) -> None:
        self._graph = graph
        self._table_changed = table_changed
        self._queue_changed = queue_changed
        self._nodes = {node.name: node for node in graph.nodes}
        self._jobs = JobWatch(graph)
        self._readers: dict[TableName, list[TableNode]] = {}
        self._dependents: dict[TableName, list[Dependent]] = {}
        self._keys: dict[TableName, KeyWatch] = {}
        self._marks: dict[Connection, ChangeMarks] = {}
        self._connections: dict[TableName, Connection] = {}
        self._pauses: defaultdict[TableName, Pause] = defaultdict(Pause)
        self.dirty: set[TableName] = set()
        # Tables that the present look at everything has not reached.
        self._unswept: set[TableName] = set()

    @property
    def goes_on(self) -> bool:
        """Whether a look at everything has tables left."""
        return bool(self._unswept)

    def see_changes(self, guard: Guard) -> None:
        """Ask each database which tables may have changed, and add the queues with due jobs."""
        for connection in self._databases():
            guard.attempt(connection.url, connection, self._see_changes, connection)

    def _databases(self) -> list[Connection]:
        """Return the databases of the tables, each once."""
        return list(dict.fromkeys(node.table.connection for node in self._graph.nodes))

    def _see_changes(self, connection: Connection) -> None:
        if connection not in self._marks:
            self._start(connection)
        changed = self._marks[connection].changed()
        self.dirty |= (changed & self._connections.keys()) | self._jobs.due()
        for node in self._graph.populated:
            if node.table.connection == connection and _notes_of(node) in changed:
                self._queue_changed(Event.NOTES_WRITTEN, node, EVERYTHING)

    def _start(self, connection: Connection) -> None:
        """Begin to watch the tables of a database: those of the graph, and the sources of keys."""
        nodes = [node for node in self._graph.nodes if node.table.connection == connection]
        tables = WatchedTables(nodes)
        self._readers.update(tables.readers)
        self._dependents.update(dependents(nodes))
        self._connections.update(dict.fromkeys(tables.names, connection))
        notes = {_notes_of(node) for node in nodes if node.populated}
        self._marks[connection] = ChangeMarks(connection, {*tables.names, *notes})

    def sweep(self) -> None:
        """Have everything looked at anew; new rows at the ends of tables are found meanwhile."""
        for keys in self._keys.values():
            keys.renew()
        self._jobs.forget()
        for connection in list(self._marks):
            self._start(connection)
        self.dirty.update(self._connections)
        self._unswept = set(self.dirty)

    def look(self, guard: Guard) -> bool:
        """Find new rows at the tables' ends, and free jobs; return whether there are rows."""
        found = [
            guard.attempt(str(name), self._connections[name], self._look, name)
            for name in self._in_order()
        ]
        return any(found)

    def _in_order(self) -> list[TableName]:
        """Return the tables that may have changed, parents first."""
        return [name for name in self._connections if name in self.dirty]

    def _look(self, name: TableName) -> bool:
        if name in self._jobs:
            self._look_at_queue(name)
            return False
        keys = self._keys.get(name)
        if keys is None:
            values = self._is_read(name)
            keys = self._keys[name] = KeyWatch(self._connections[name], name, values=values)
        appended = keys.appended()
        if appended:
            self._table_changed(Event.ROWS_APPENDED, name, Region(keys=tuple(appended)))
        return bool(appended)

    def _look_at_queue(self, name: TableName) -> None:
        node = self._jobs.node(name)
        if not self._jobs.seen(name) and node.grain is not None:
            self._queue_changed(Event.FAILURES_IN_DOUBT, node, EVERYTHING)
        freed, turned = self._jobs.look(name)
        if freed.whole or freed.keys:
            self._queue_changed(Event.KEYS_FREED, node, freed)
        if node.grain is not None and turned:
            keys = tuple(map(node.grain.decode, turned))
            self._queue_changed(Event.JOBS_FAILED, node, Region(keys=keys))
        self._queue_changed(Event.QUEUE_READ, node, EVERYTHING)
        if self._jobs.complete(name):
            self._seen(name)

    def _is_read(self, name: TableName) -> bool:
        """Whether other values than keys matter: entered ones, and ones that other tables read."""
        node = self._nodes.get(name)
        entered = node is None or not (node.populated or node.master is not None)
        return entered or bool(self._readers.get(name) or self._dependents.get(name))

    def comparable(self, *, busy: bool) -> list[TableName]:
        """Return the tables to `compare` now, the one with the oldest comparison first.

        Slow tables that were compared just now are left out.

        Parameters
        ----------
        busy
            Whether there is work already, so that slow tables are left to a later tick.
        """
        now = time.monotonic()
        found = [
            name
            for name in self._in_order()
            if (keys := self._keys.get(name)) is not None
            and self._pauses[name].over
            and not (busy and keys.seconds > SLOW and now < keys.compared + LATE)
        ]
        return sorted(found, key=lambda name: self._keys[name].compared)

    def compare(self, name: TableName, guard: Guard) -> None:
        """Find the changes in a table other than new rows at its end."""
        guard.attempt(str(name), self._connections[name], self._compare, name)

    def _compare(self, name: TableName) -> None:
        keys = self._keys[name]
        found = keys.compare()
        self._seen(name)
        self._pauses[name].took(keys.seconds)
        if found is None:
            return
        region = EVERYTHING if len(found.region.ranges) > MANY_RANGES else found.region
        if found.keys:
            self.dirty.update(self._jobs.failing_below(name))
        event = Event.KEYS_CHANGED if found.keys else Event.VALUES_CHANGED
        self._table_changed(event, name, region)

    def free_dead(self, guard: Guard) -> None:
        """Make the keys pending again whose worker died."""
        for connection in self._databases():
            guard.attempt(connection.url, connection, self._free_dead, connection)

    def _free_dead(self, connection: Connection) -> None:
        for node, region in self._jobs.free_dead(connection):
            self._queue_changed(Event.KEYS_FREED, node, region)

    def _seen(self, name: TableName) -> None:
        self.dirty.discard(name)
        self._unswept.discard(name)

    def readers(self, name: TableName) -> list[TableNode]:
        """Return the tables whose keys come from a table."""
        return self._readers.get(name, [])

    def dependents(self, name: TableName) -> list[Dependent]:
        """Return the tables whose rows become stale with those of a table."""
        return self._dependents.get(name, [])

    def errors(self, node: TableNode) -> Errors:
        """Return the failed jobs of a table, by partition."""
        return self._jobs.errors(node)

    def rows(self, nodes: Iterable[TableNode]) -> int:
        """Return the number of rows of some tables and of the sources of their keys."""
        own = {node.name for node in nodes}
        sources = {
            name
            for name, readers in self._readers.items()
            if any(reader.name in own for reader in readers)
        }
        return sum(self._keys[name].rows for name in own | sources if name in self._keys)


class WatchedTables:
    """The tables of one database to watch, in an order in which parents come first.

    Attributes
    ----------
    names
        The tables.
    readers
        The tables whose keys come from a table, by that table.
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
class Dependent:
    """A table whose rows become stale when those of another change.

    Attributes
    ----------
    names
        ``{name in the other's key: name here}``; None where any row may become stale.
    """

    node: TableNode
    names: Mapping[str, str] | None


def dependents(nodes: Iterable[TableNode]) -> dict[TableName, list[Dependent]]:
    """Return the dependents of tables, by table."""
    found: dict[TableName, list[Dependent]] = defaultdict(list)
    for node in (node for node in nodes if node.populated):
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            for name, names in Inputs(node.table, node.populator.key_names).tables():
                found[name].append(Dependent(node, names))
    return found


def renamed_from(reader: TableNode, parent: TableName) -> dict[str, str] | None:
    """Return ``{name in the parent: name here}`` of attributes that keys have from a parent.

    None where a new row of the parent may bring any key: with a key source of the user's, and where
    a table refers to the same parent twice, so that each row of the parent is joined with all
    others.
    """
    table = own_table(reader)
    if table is None or has_own_key_source(table):
        return None
    try:
        foreign_keys = table.foreign_keys
    except MissingTableError:
        # The look at the table itself reports that the table is gone.
        return None
    names = [
        {theirs: ours for ours, theirs in key.attributes.items()}
        for key in foreign_keys
        if key.primary and key.parent == parent
    ]
    return names[0] if len(names) == 1 else None


def _notes_of(node: TableNode) -> TableName:
    """Return the hidden table with the notes on the rows of a table."""
    return TableName(node.name.schema, NOTES_TABLE)


def _sources(node: TableNode) -> frozenset[TableName]:
    """Return the tables that the keys of a table come from."""
    if not node.populated:
        return frozenset()
    table = own_table(node)
    if table is not None:
        # A key source of the user's that fails says so when keys are asked for.
        with contextlib.suppress(Exception):
            return KeySource(table).keys.tables
    return frozenset(key.parent for key in node.table.foreign_keys)


def _has_queue(node: TableNode) -> bool:
    if not node.populated or not node.reservable:
        return False
    table = own_table(node)
    if table is None:
        return True
    with contextlib.suppress(Exception):
        return queue_of(KeySource(table)) is not None
    return False
