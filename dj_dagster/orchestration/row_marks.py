"""Rows that Dagster does not know of: which are without a mark in the event log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dagster import AssetKey, DagsterEventType, DagsterInstance

from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.node_keys import present_in, present_pages
from dj_dagster.orchestration.regions import Regions
from dj_dagster.orchestration.table_node import TableNode

CHUNK = 10_000
"""Partitions that the event log is asked for at once; SQLite limits a statement's variables."""

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
    marked = _marked(instance, node.key, partitions)
    return node.finished([partition for partition in partitions if partition not in marked])


def _marked(instance: DagsterInstance, key: AssetKey, partitions: Sequence[str]) -> set[str]:
    marked: set[str] = set()
    event = DagsterEventType.ASSET_MATERIALIZATION
    for start in range(0, len(partitions), CHUNK):
        chunk = set(partitions[start : start + CHUNK])
        found = instance.event_log_storage.get_latest_storage_id_by_partition(key, event, chunk)
        marked.update(found)
    return marked


def mark_row_count(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table without partitions, with its number of rows, when that has changed.

    Returns the number of marks written.
    """
    rows = len(node.table)
    if rows == (_marked_row_count(instance, node.key) or 0):
        return 0
    return write_marks(instance, [Mark(node.key, None, {ROWS: rows})])


def _marked_row_count(instance: DagsterInstance, key: AssetKey) -> object:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(ROWS)
    return None if value is None else value.value
