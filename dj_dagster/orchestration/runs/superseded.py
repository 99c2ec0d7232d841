"""Events of partitions to which younger ones are known: found, and deleted in batches.

Dagster shows of a partition its last materialisation, the run of its last plan, and its last note.
Those before are history alone. They are found by Dagster's own order, the numbers of the
events, and deleted as Dagster deletes the events of a run, with their tags.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType

from dj_dagster.orchestration._dagster import (
    DATA_VERSION_TAG,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)

CHUNK = 1000
"""Events that are deleted in one transaction, at most, so that writers hardly wait."""

MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION.value
PLAN = DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
OBSERVATION = DagsterEventType.ASSET_OBSERVATION.value


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event of a table."""

    id: int
    type: str
    partition: str | None
    timestamp: datetime
    run_id: str


def superseded(
    storage: SqlEventLogStorage,
    key: AssetKey,
    *,
    before: datetime,
    keep: int,
    busy: Collection[str],
) -> list[Event]:
    """Return the events of a table that may go, the oldest first.

    Parameters
    ----------
    before
        Only events that are older than this time, in UTC without a time zone, are deleted.
    keep
        The number of events of each kind and partition that stay, at least.
    busy
        Runs whose events all stay.
    """
    columns, tags = SqlEventLogStorageTable.c, AssetEventTagsTable.c
    tagged = (
        sa.select(sa.literal(1))
        .where(tags.event_id == columns.id, tags.key == DATA_VERSION_TAG)
        .exists()
    )
    every = (
        sa.select(
            columns.id,
            columns.dagster_event_type.label("type"),
            columns.partition,
            columns.timestamp,
            columns.run_id,
            tagged.label("tagged"),
        )
        .where(columns.asset_key == key.to_string())
        .where(columns.dagster_event_type.in_([MATERIALIZATION, PLAN, OBSERVATION]))
        .subquery()
    )
    # The place of an event among those of its partition that are alike, from the youngest.
    of_kind, of_versioned = (
        sa.func.row_number().over(
            partition_by=[every.c.partition, alike], order_by=every.c.id.desc()
        )
        for alike in (every.c.type, every.c.tagged)
    )
    events = sa.select(
        every, of_kind.label("of_kind"), of_versioned.label("of_versioned")
    ).subquery()
    found = events.c
    query = (
        sa.select(found.id, found.type, found.partition, found.timestamp, found.run_id)
        .where(found.of_kind > keep, found.timestamp < before)
        # Dagster compares the last versions of a partition, whichever kind of event has them.
        .where(sa.or_(~found.tagged, found.of_versioned > 1))
        .order_by(found.id)
    )
    with storage.index_connection() as connection:
        rows = connection.execute(query).all()
    return [Event(*row) for row in rows if row.run_id not in busy]


def delete(
    storage: SqlEventLogStorage, key: AssetKey, events: Sequence[Event]
) -> Iterator[list[Event]]:
    """Delete events, and yield those of each transaction that has ended."""
    # A partition that is not given is compared otherwise.
    whole = [event for event in events if event.partition is None]
    parts = [event for event in events if event.partition is not None]
    for group in (whole, parts):
        for start in range(0, len(group), CHUNK):
            chunk = group[start : start + CHUNK]
            gone = _delete_from_index(storage, chunk)
            if isinstance(storage, SqliteEventLogStorage):
                _delete_from_runs(storage, key, gone)
            yield gone


def _delete_from_index(storage: SqlEventLogStorage, chunk: Sequence[Event]) -> list[Event]:
    """Delete events that are still followed by another, and return them.

    The events after them may have been deleted meanwhile, with their run or because their rows are
    gone.
    """
    columns, newer = SqlEventLogStorageTable.c, SqlEventLogStorageTable.alias("newer")
    same = newer.c.partition == columns.partition
    if chunk[0].partition is None:
        same = newer.c.partition.is_(None)
    followed = (
        sa.select(sa.literal(1))
        .where(newer.c.asset_key == columns.asset_key, same, newer.c.id > columns.id)
        .where(newer.c.dagster_event_type == columns.dagster_event_type)
        # An event that was written earlier may be hidden, because the asset was wiped between.
        .where(newer.c.timestamp >= columns.timestamp)
        .exists()
    )
    ids = [event.id for event in chunk]
    with storage.index_transaction() as connection:
        query = sa.select(columns.id).where(columns.id.in_(ids), followed)
        gone = set(connection.execute(query).scalars())
        tags = AssetEventTagsTable.c.event_id
        connection.execute(AssetEventTagsTable.delete().where(tags.in_(gone)))
        connection.execute(SqlEventLogStorageTable.delete().where(columns.id.in_(gone)))
    return [event for event in chunk if event.id in gone]


def _delete_from_runs(
    storage: SqliteEventLogStorage, key: AssetKey, events: Sequence[Event]
) -> None:
    """Delete events from the files of their runs, where they have other numbers."""
    columns = SqlEventLogStorageTable.c
    by_run: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_run[event.run_id].append(event)
    for run_id, some in by_run.items():
        if not _has_events(storage, run_id):
            continue
        same = SqlEventLogStorageTable.delete().where(
            columns.asset_key == key.to_string(),
            columns.dagster_event_type == sa.bindparam("type"),
            columns.timestamp == sa.bindparam("at"),
            columns.partition.is_(None)
            if some[0].partition is None
            else columns.partition == sa.bindparam("of"),
        )
        rows: list[dict[str, Any]] = [
            {"type": event.type, "at": event.timestamp, "of": event.partition} for event in some
        ]
        with storage.run_connection(run_id) as connection:
            connection.execute(same, rows)


def events_left(storage: SqlEventLogStorage, run_ids: Collection[str]) -> Mapping[str, int]:
    """Return the numbers of events of assets that runs have, for those that have any."""
    columns, found = SqlEventLogStorageTable.c, dict[str, int]()
    wanted = sorted(run_ids)
    with storage.index_connection() as connection:
        for start in range(0, len(wanted), CHUNK):
            query = (
                sa.select(columns.run_id, sa.func.count())
                .where(columns.run_id.in_(wanted[start : start + CHUNK]))
                .where(columns.asset_key.is_not(None))
                .group_by(columns.run_id)
            )
            found |= dict(connection.execute(query).tuples().all())
    return found


def log_lines(storage: SqlEventLogStorage, run_id: str, *, remove: bool) -> int:
    """Return the number of lines in a run's log that are not events of Dagster, and remove them."""
    if not _has_events(storage, run_id):
        return 0
    columns = SqlEventLogStorageTable.c
    lines = sa.and_(columns.run_id == run_id, columns.dagster_event_type.is_(None))
    with storage.run_connection(run_id) as connection:
        query = sa.select(sa.func.count()).select_from(SqlEventLogStorageTable).where(lines)
        count: int = connection.execute(query).scalar_one()
        if remove and count:
            connection.execute(SqlEventLogStorageTable.delete().where(lines))
    return count


def shrink(storage: SqlEventLogStorage, run_id: str) -> None:
    """Give the space of deleted events in a run's file back, where runs have files."""
    if not isinstance(storage, SqliteEventLogStorage) or not _has_events(storage, run_id):
        return
    engine = sa.create_engine(storage.conn_string_for_shard(run_id), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM")
    engine.dispose()


def _has_events(storage: SqlEventLogStorage, run_id: str) -> bool:
    """Whether a run has a file where runs have files; opening one that is not there creates it."""
    if not isinstance(storage, SqliteEventLogStorage):
        return True
    return Path(storage.path_for_shard(run_id)).exists()
