"""A plan of what is made again: after a change of `make`, or after rows are deleted.

Nothing is changed. Rows that a delete would take are found as `delete` finds them, and keys to make
again as `recompute` chooses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance

from dj_dagster.errors import ConfigurationError
from dj_dagster.model.heading import Key, Values
from dj_dagster.model.names import TableName, Tier, parse_table_name, title
from dj_dagster.orchestration.inspection.location import Given, graph_of
from dj_dagster.orchestration.jobs.populate_job import check_stale, chosen_tables
from dj_dagster.orchestration.runs.run_records import ALL
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.runs.work import RECOMPUTE, OnExisting, deletion_of, ungiven
from dj_dagster.orchestration.tables.table_graph import Named, TableGraph, Tables
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.algebra.condition import refuse_oversights
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.deleting import hierarchy
from dj_dagster.relational.deleting.delete import Doomed, check_parts, doomed_rows
from dj_dagster.relational.expression import QueryExpression
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.stored import ForeignKey
from dj_dagster.workflow.jobs import queues
from dj_dagster.workflow.notes import is_entered

TOGETHER = 1000
"""Keys whose dependent rows are found together."""

SAMPLES = 500
"""Durations of a table in Dagster's history that are looked at, at most."""


@dataclass(frozen=True)
class PlannedTable:
    """The effect of a plan on one table.

    Attributes
    ----------
    table, tier
        The table as users name it, ``"lab.Session"``, and its tier.
    rows
        The number of rows that would be deleted.
    keys
        The number of keys that `make` would be given again.
    left
        The number of keys to make again that would be left as they are: rows below them would be
        lost, or they are not in the key source any more.
    lost
        The number of rows that would be deleted, and that no `make` brings back.
    seconds
        The time that the `make` of the keys would take, by the mean of recorded durations; None if
        none is recorded.
    """

    table: str
    tier: str
    rows: int
    keys: int = 0
    left: int = 0
    lost: int = 0
    seconds: float | None = None


def plan(
    given: Given | Iterable[Given],
    tables: Tables = ALL,
    *,
    stale: bool = True,
    delete_entered: bool = False,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[PlannedTable]:
    """Return what `recompute` with the same arguments would delete and make again.

    Parameters
    ----------
    given, connection
        The result of `build_definitions`, or what it takes.
    tables, stale, delete_entered
        See `recompute`. With ``stale=False`` this is what a change of the `make` of the tables
        would have recomputed.
    instance
        The Dagster instance that knows durations, and code versions of keys without a note.

    Raises
    ------
    ConfigurationError
        When `tables` is empty, or has a name that is not the name of a table that `make` fills.
    """
    check_stale(stale)
    graph = graph_of(given, connection=connection)
    where = instance or DagsterInstance.ephemeral()
    wanted = {node.key for node in chosen_tables(graph, tables)}
    found, existing = _Found(graph), OnExisting(RECOMPUTE, delete_entered)
    for node in graph.populated:
        keys = _chosen(where, graph, node, stale=stale) if node.key in wanted else []
        gone = found.keys_of(node)
        keys = [key for key in keys if tuple(key.values()) not in gone]
        deletion = deletion_of(graph, node, existing)
        for start in range(0, len(keys), TOGETHER):
            chunk = keys[start : start + TOGETHER]
            left = ungiven(node, chunk)
            left |= deletion.kept([key for key in chunk if tuple(key.values()) not in left])
            free = [key for key in chunk if tuple(key.values()) not in left]
            found.left[node.name] = found.left.get(node.name, 0) + len(left)
            if free:
                found.take(node.table.connection, deletion.doomed(free))
        found.again[node.name] = _given_again(node, found.keys_of(node), found.rows)
    return found.tables(where)


def plan_deletion(
    given: Given | Iterable[Given],
    table: Named,
    *restrictions: object,
    connection: Connection | None = None,
    instance: DagsterInstance | None = None,
) -> list[PlannedTable]:
    """Return what deleting rows of a table would delete with them, and what would be made again.

    A key is made again if it loses all its rows and stays in its key source: a key of a computed
    table, but not one that is computed from a row that a person entered, once that is deleted.

    Parameters
    ----------
    given, connection, instance
        See `plan`.
    table
        The table by name, class or asset key.
    *restrictions
        Conditions on its rows, all of which must hold; anything that may stand after ``&``.

    Raises
    ------
    ConfigurationError
        When the name does not stand for one table, or there is not a restriction.
    DataJointError
        When a restriction would choose every row by accident, or the delete would be refused.
    """
    if not restrictions:
        raise ConfigurationError("Say which rows are deleted: give a restriction.")
    graph = graph_of(given, connection=connection)
    node = graph.single(table, "table")
    rows: QueryExpression = node.table
    for restriction in restrictions:
        rows = rows & restriction
    refuse_oversights(rows.node, f"plan a delete from {node.title}")
    used = rows.connection
    found = _Found(graph)
    found.take(used, doomed_rows(used, hierarchy.of_table(used, rows.node), node.name))
    check_parts({name: len(each) for name, each in found.rows.items()})
    found.judge()
    return found.tables(instance or DagsterInstance.ephemeral())


@dataclass
class _Found:
    """The rows that would be deleted, and what would become of their keys.

    Attributes
    ----------
    rows
        The keys of the rows, by table, parents first.
    again
        The keys that `make` would be given again, by table.
    left
        The numbers of keys that are left, by table.
    """

    graph: TableGraph
    rows: dict[TableName, set[Values]] = field(default_factory=dict[TableName, set[Values]])
    again: dict[TableName, set[Values]] = field(default_factory=dict[TableName, set[Values]])
    left: dict[TableName, int] = field(default_factory=dict[TableName, int])

    def take(self, connection: Connection, doomed: Doomed) -> None:
        """Add rows that would be deleted."""
        for name, layers in doomed.items():
            known = self.rows.setdefault(name, set())
            for layer in layers:
                known.update(fetch.rows(connection, layer, hierarchy.key_names(layer)))

    def keys_of(self, node: TableNode) -> set[Values]:
        """Return the keys of `make` whose rows would be deleted."""
        places = _places(node, node.populator.key_names)
        return {tuple(row[place] for place in places) for row in self.rows.get(node.name, ())}

    def judge(self) -> None:
        """Find out which of the deleted rows a `make` brings back, parents first."""
        gone: dict[TableName, set[Values]] = {}
        for node in self.graph.nodes:
            rows = self.rows.get(node.name)
            if rows and node.populated:
                places = _places(node, node.populator.key_names)
                safe = rows - self._orphaned(node, rows, gone)
                keys = {tuple(row[place] for place in places) for row in safe}
                self.again[node.name] = _given_again(node, keys, self.rows)
            if rows:
                gone[node.name] = self.lost(node.name)

    def lost(self, name: TableName) -> set[Values]:
        """Return the deleted rows of a table that no `make` brings back; a part has its master's.

        Whether `make` fills a table of another code location is judged by its tier.
        """
        rows, node = self.rows.get(name, set[Values]()), self.graph.by_name.get(name)
        if node is None:
            return rows if is_entered(name) else set()
        root = node if node.master is None else self.graph.by_key[node.master]
        if not root.populated:
            return rows if is_entered(name) else set()
        names = root.populator.key_names
        places, again = _places(node, names), self.again.get(root.name, set())
        if len(places) < len(names):
            return set()
        return {row for row in rows if tuple(row[place] for place in places) not in again}

    def _orphaned(
        self, node: TableNode, rows: set[Values], gone: Mapping[TableName, set[Values]]
    ) -> set[Values]:
        """Return the rows that refer, by their key, to rows that would be gone for good."""
        found = set[Values]()
        for foreign_key in node.table.foreign_keys:
            parents = gone.get(foreign_key.parent)
            if parents and foreign_key.primary:
                theirs = self._projected(foreign_key, parents)
                places = _places(node, list(foreign_key.attributes))
                found |= {row for row in rows if tuple(row[place] for place in places) in theirs}
        return found

    def _projected(self, foreign_key: ForeignKey, rows: set[Values]) -> set[Values]:
        parent = self.graph.by_name[foreign_key.parent]
        places = _places(parent, list(foreign_key.attributes.values()))
        return {tuple(row[place] for place in places) for row in rows}

    def tables(self, instance: DagsterInstance) -> list[PlannedTable]:
        """Return what would become of each table that something would become of."""
        names = [node.name for node in self.graph.nodes]
        names += [name for name in self.rows if name not in self.graph.by_name]
        return [
            self._table(instance, name)
            for name in names
            if self.rows.get(name) or self.left.get(name)
        ]

    def _table(self, instance: DagsterInstance, name: TableName) -> PlannedTable:
        node, again = self.graph.by_name.get(name), self.again.get(name, set())
        seconds = _seconds(instance, node, again) if node is not None and again else None
        parsed = parse_table_name(name.table)
        tier = node.tier if node is not None else parsed.tier if parsed else Tier.MANUAL
        return PlannedTable(
            title(name),
            tier.value,
            len(self.rows.get(name, ())),
            len(again),
            self.left.get(name, 0),
            len(self.lost(name)),
            seconds,
        )


def _places(node: TableNode, names: Sequence[str]) -> list[int]:
    """Return where attributes are in the rows' keys."""
    key = list(node.table.primary_key)
    return [key.index(name) for name in names if name in key]


def _chosen(
    instance: DagsterInstance, graph: TableGraph, node: TableNode, *, stale: bool
) -> list[Key]:
    if stale:
        return Aging(instance, graph, node).stale()
    return [key for page in node.staleness.pages() for key in node.respelled(page)]


def _given_again(
    node: TableNode, keys: set[Values], deleted: Mapping[TableName, set[Values]]
) -> set[Values]:
    """Return those of some keys that are in the key source, and lose all of their rows."""
    names, table = node.populator.key_names, node.table
    listed = [dict(zip(names, row, strict=True)) for row in keys]
    found, gone = set(keys), deleted.get(node.name, set[Values]())
    places = _places(node, names)
    for start in range(0, len(listed), TOGETHER):
        chunk = listed[start : start + TOGETHER]
        found -= ungiven(node, chunk).keys()
        if len(names) < len(table.primary_key):
            # A make that has inserted several rows is called again once all are gone.
            there = table & chunk if names else table
            rows = fetch.rows(table.connection, there.node, table.primary_key)
            found -= {tuple(row[p] for p in places) for row in rows if row not in gone}
    return found


def _seconds(instance: DagsterInstance, node: TableNode, keys: set[Values]) -> float | None:
    """Return the time that the `make` of some keys takes, by recorded durations."""
    units = len(keys)
    durations = [
        float(seconds)
        for queue in queues(node.table.connection, [node.table])
        for (seconds,) in fetch.rows(queue.connection, queue.rows.node("success"), ["duration"])
        if seconds is not None
    ]
    if not durations:
        durations = list(_marked(instance, node))
        if node.coarse:
            # The mark of a partition has the time of all its keys.
            names = node.populator.key_names
            given = [dict(zip(names, row, strict=True)) for row in keys]
            units = len(set(node.partitions_of(given)))
    return units * sum(durations) / len(durations) if durations else None


def _marked(instance: DagsterInstance, node: TableNode) -> Iterator[float]:
    for record in instance.fetch_materializations(node.key, limit=SAMPLES).records:
        mark = record.asset_materialization
        seconds: Any = mark.metadata.get("seconds_make") if mark is not None else None
        if seconds is not None:
            yield float(seconds.value)
