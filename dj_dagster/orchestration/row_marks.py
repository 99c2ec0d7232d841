"""Rows that Dagster does not know of: which are without a mark in the event log."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dagster import AssetKey, DagsterInstance

from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.node_keys import present_in, present_pages
from dj_dagster.orchestration.provenance import last_marks
from dj_dagster.orchestration.regions import Regions
from dj_dagster.orchestration.shown import MISSING, shown
from dj_dagster.orchestration.table_node import TableNode

ROWS = "dagster/row_count"


def unmarked_pages(instance: DagsterInstance, node: TableNode) -> Iterator[list[str]]:
    """Yield the partitions of a whole table that have rows and no mark, as many as a page has."""
    for page in present_pages(node):
        yield unmarked(instance, node, page)


def unmarked_in(instance: DagsterInstance, node: TableNode, regions: Regions) -> list[str]:
    """Return partitions that have rows in some regions and no mark in the event log."""
    return unmarked(instance, node, present_in(node, regions))


def unmarked(instance: DagsterInstance, node: TableNode, partitions: list[str]) -> list[str]:
    """Return those partitions, of some that have rows, of which Dagster has no mark."""
    known = shown(instance, node.key, partitions)
    return node.finished([p for p in partitions if not known.get(p, MISSING).marked])


def repeated(
    instance: DagsterInstance, node: TableNode, partitions: Collection[str]
) -> dict[str, Mark]:
    """Return marks that say of some partitions once more what their last materialisations said."""
    records = last_marks(instance, node.key, partitions) if partitions else ()
    found = {record.partition_key or "": record.asset_materialization for record in records}
    return {
        partition: Mark(node.key, partition, mark.metadata, again=True, tags=mark.tags)
        for partition, mark in found.items()
        if mark is not None
    }


def mark_row_count(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table without partitions, with its number of rows, when that has changed.

    Returns the number of marks written.
    """
    rows = len(node.table)
    if rows == (_marked_row_count(instance, node.key) or 0):
        return 0
    return write_marks(instance, [Mark(node.key, None, {ROWS: rows})])


def mark_single(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table that `make` fills and that has one row at most, where nobody has marked it."""
    if instance.get_latest_materialization_event(node.key) is not None or not node.table:
        return 0
    return write_marks(instance, [Mark(node.key, None)])


def _marked_row_count(instance: DagsterInstance, key: AssetKey) -> object:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(ROWS)
    return None if value is None else value.value
