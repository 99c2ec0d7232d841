"""Keeping Dagster's partitions and marks true to the tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dagster import AssetKey, DagsterInstance

from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.table_graph import TableGraph, TableNode

# SQLite limits the variables of one statement to 32,766.
CHUNK = 10_000

DELETIONS_AT_ONCE = 2_000
"""Partitions removed in one call, at most: Dagster takes a statement, 1 to 9 ms, for each."""

ROWS = "dagster/row_count"


@dataclass(frozen=True)
class Changes:
    """How many partitions were added and removed, and how many marks written."""

    added: int = 0
    removed: int = 0
    marked: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            self.added + other.added, self.removed + other.removed, self.marked + other.marked
        )

    def __str__(self) -> str:
        return f"{self.added} partitions added, {self.removed} removed, {self.marked} marked"


def add_partitions(instance: DagsterInstance, grain: Grain, partitions: Sequence[str]) -> int:
    """Register partitions, those already there too, and return how many are new."""
    known = set(instance.get_dynamic_partitions(grain.name))
    new = [partition for partition in dict.fromkeys(partitions) if partition not in known]
    for start in range(0, len(new), CHUNK):
        instance.add_dynamic_partitions(grain.name, new[start : start + CHUNK])
    return len(new)


def sync_partitions(instance: DagsterInstance, graph: TableGraph, grain: Grain) -> Changes:
    """Give a grain the partitions that its tables have, or could have, rows for; remove others."""
    wanted = wanted_partitions(graph, grain)
    gone = sorted(set(instance.get_dynamic_partitions(grain.name)).difference(wanted))
    for partition in gone[:DELETIONS_AT_ONCE]:
        instance.delete_dynamic_partition(grain.name, partition)
    added = add_partitions(instance, grain, wanted)
    return Changes(added=added, removed=len(gone[:DELETIONS_AT_ONCE]))


def wanted_partitions(graph: TableGraph, grain: Grain) -> list[str]:
    """Return the keys of the tables where the grain begins, and those that `make` could be given.

    Tables that refer to another of their grain add none: their keys are keys of that one.
    """
    nodes = [node for node in graph.of_grain(grain) if node.master is None]
    keys = {node.key for node in nodes}
    found: dict[str, None] = {}
    for node in nodes:
        if not keys & set(node.parents):
            found.update(dict.fromkeys(node.possible_partitions()))
    return list(found)


def mark_rows(
    instance: DagsterInstance, node: TableNode, *, but: Collection[str] = (), limit: int
) -> Changes:
    """Mark partitions that have rows and no mark: rows typed in, or made outside Dagster.

    Parameters
    ----------
    but
        Partitions to leave out: a run is making them, and is going to mark them itself.
    limit
        The most marks to write.
    """
    marked = instance.get_materialized_partitions(node.key)
    missing = [p for p in node.partitions() if p not in marked and p not in but]
    return Changes(marked=write_marks(instance, (Mark(node.key, p) for p in missing[:limit])))


def mark_row_count(instance: DagsterInstance, node: TableNode) -> Changes:
    """Mark a table without partitions, with its number of rows, when that has changed."""
    rows = len(node.table)
    if rows == (_marked_row_count(instance, node.key) or 0):
        return Changes()
    return Changes(marked=write_marks(instance, [Mark(node.key, None, {ROWS: rows})]))


def _marked_row_count(instance: DagsterInstance, key: AssetKey) -> object:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(ROWS)
    return None if value is None else value.value
