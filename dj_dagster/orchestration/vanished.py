"""Marks of rows that are gone: taken back, so that their partitions are shown as missing.

Most rows that are deleted are made again, or their partitions go with them. There remain those that
a key source leaves out by now, that hang on a row which fails, and that people have deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, DagsterInstance
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable

from dj_dagster.orchestration.node_keys import present_among, present_pages
from dj_dagster.orchestration.table_node import TableNode

CHUNK = 10_000
"""Partitions of one statement; SQLite limits its variables to 32,766."""

_MADE = DagsterEventType.ASSET_MATERIALIZATION


def vanished_pages(
    instance: DagsterInstance, node: TableNode, keys: Sequence[AssetKey]
) -> Iterator[list[str]]:
    """Take back the marks of rows that are gone, piece by piece.

    Parameters
    ----------
    node
        The table whose rows tell.
    keys
        The assets that are marked by its rows: itself, and its parts.

    Yields
    ------
    list of str
        After each piece of work, the partitions that have lost a mark by it.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        # Dagster itself cannot wipe single partitions.
        return
    # Rows that come while others are read are marked later than this.
    last = storage.get_maximum_record_id() or 0
    marked = {key: storage.get_materialized_partitions(key) for key in keys}
    gone = set[str]().union(*marked.values())
    yield []
    for page in present_pages(node):
        gone.difference_update(page)
        yield []
    waiting = sorted(gone)
    for start in range(0, len(waiting), CHUNK):
        chunk = waiting[start : start + CHUNK]
        chunk = sorted(set(chunk) - present_among(node, chunk))
        for key in keys:
            _take_back(storage, key, [each for each in chunk if each in marked[key]], last)
        yield chunk


def _take_back(
    storage: SqlEventLogStorage, key: AssetKey, partitions: Iterable[str], last: int
) -> None:
    """Delete the materialisations of partitions, as Dagster does when an asset is wiped."""
    wanted = list(partitions)
    if not wanted:
        return
    events, tags = SqlEventLogStorageTable.c, AssetEventTagsTable.c
    of_rows = sa.and_(
        events.asset_key == key.to_string(),
        events.dagster_event_type == _MADE.value,
        events.partition.in_(wanted),
        events.id <= last,
    )
    with storage.index_connection() as connection:
        numbers = sa.select(events.id).where(of_rows)
        connection.execute(AssetEventTagsTable.delete().where(tags.event_id.in_(numbers)))
        connection.execute(SqlEventLogStorageTable.delete().where(of_rows))
    # What Dagster has once found to be there stays so in its cache.
    storage.wipe_asset_cached_status(key)
