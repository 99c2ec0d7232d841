"""Keeping Dagster's partitions and marks true to the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dagster import AssetKey, DagsterEventType, DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import DynamicPartitionsTable

from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.maker import OwnMaker
from dj_dagster.orchestration.regions import Regions
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import source

# SQLite limits the variables of one statement to 32,766.
CHUNK = 10_000

FEW = 20_000
"""Up to this many partitions are looked up one by one in the event log."""

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
    register(instance, grain, new)
    return len(new)


def register(instance: DagsterInstance, grain: Grain, partitions: Sequence[str]) -> None:
    """Register partitions, in bulk; those already there are left as they are."""
    for start in range(0, len(partitions), CHUNK):
        instance.add_dynamic_partitions(grain.name, partitions[start : start + CHUNK])


def remove_partitions(instance: DagsterInstance, grain: Grain, partitions: Sequence[str]) -> None:
    """Take partitions out of a grain, in bulk where the storage lets us.

    Dagster itself has a statement for each, 1 to 9 ms.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        for partition in partitions:
            instance.delete_dynamic_partition(grain.name, partition)
        return
    columns = DynamicPartitionsTable.c
    for start in range(0, len(partitions), CHUNK):
        chunk = partitions[start : start + CHUNK]
        with storage.index_connection() as connection:
            connection.execute(
                DynamicPartitionsTable.delete().where(
                    columns.partitions_def_name == grain.name, columns.partition.in_(chunk)
                )
            )


def sync_partitions(instance: DagsterInstance, graph: TableGraph, grain: Grain) -> Changes:
    """Give a grain the partitions that its tables have, or could have, rows for; remove others."""
    wanted = wanted_partitions(graph, grain)
    gone = sorted(set(instance.get_dynamic_partitions(grain.name)).difference(wanted))
    remove_partitions(instance, grain, gone)
    added = add_partitions(instance, grain, wanted)
    return Changes(added=added, removed=len(gone))


def wanted_partitions(graph: TableGraph, grain: Grain) -> list[str]:
    """Return the keys of the tables where the grain begins, and those that `make` could be given.

    Tables that refer to another of their grain add none: their keys are keys of that one.
    """
    found: dict[str, None] = {}
    for node in beginnings(graph, grain):
        found.update(dict.fromkeys(node.possible_partitions()))
    return list(found)


def beginnings(graph: TableGraph, grain: Grain) -> list[TableNode]:
    """Return the tables where a grain begins."""
    nodes = [node for node in graph.of_grain(grain) if node.master is None]
    keys = {node.key for node in nodes}
    return [node for node in nodes if not keys & set(node.parents)]


def possible_in(node: TableNode, regions: Regions) -> list[str]:
    """Return the partitions that a table has, or that its `make` could be given, in regions."""
    if regions.whole:
        return node.possible_partitions()
    if node.grain is None:
        return []
    table = own_table(node)
    if table is None:
        return _present_in(node, regions)
    keys = source(table, *regions.restrictions())
    names = keys.heading.primary_key
    return node.grain.encode_all(fetch.dicts(node.table.connection, keys, names, names))


def own_table(node: TableNode) -> Makes | None:
    """Return the table if it is one of ours that `make` fills."""
    return node.filler.table if isinstance(node.filler, OwnMaker) else None


def unmarked_in(instance: DagsterInstance, node: TableNode, regions: Regions) -> list[str]:
    """Return partitions that have rows in some regions and no mark in the event log."""
    partitions = node.partitions() if regions.whole else _present_in(node, regions)
    marked = _marked(instance, node.key, partitions)
    return node.finished([partition for partition in partitions if partition not in marked])


def _present_in(node: TableNode, regions: Regions) -> list[str]:
    if node.grain is None:
        return []
    rows: Any = node.table & regions.restrictions()[0]
    return node.grain.encode_all(rows.proj().to_dicts(order_by=node.grain.names))


def _marked(instance: DagsterInstance, key: AssetKey, partitions: Sequence[str]) -> set[str]:
    if len(partitions) > FEW:
        return instance.get_materialized_partitions(key)
    marked: set[str] = set()
    event = DagsterEventType.ASSET_MATERIALIZATION
    for start in range(0, len(partitions), CHUNK):
        chunk = set(partitions[start : start + CHUNK])
        found = instance.event_log_storage.get_latest_storage_id_by_partition(key, event, chunk)
        marked.update(found)
    return marked


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
