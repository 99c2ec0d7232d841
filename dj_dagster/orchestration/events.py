"""Writing marks (materialised, planned) into Dagster's event log, many at a time.

Dagster logs an event in one transaction each, 50 to 200 a second in SQLite; a mark per key and
table would then cost more than the work itself. Here all marks of a batch go to the storage
together: by the storage's own batch write where it has one (PostgreSQL), by one transaction in a
file for SQLite, which Dagster itself never batches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable


@dataclass(frozen=True)
class Origin:
    """The step that a mark belongs to; the default is no run at all, as for rows typed in."""

    run_id: str = RUNLESS_RUN_ID
    job_name: str = RUNLESS_JOB_NAME
    step_key: str | None = None


@dataclass(frozen=True)
class Mark:
    """One line of the event log: a table's partition has its rows, or is `planned` to have them.

    Dagster shows a partition as failed when a plan, not followed by a materialisation, is of a run
    that failed. `partition` is None for tables without partitions.

    Attributes
    ----------
    again
        Whether the rows were there before, and marked: the mark only says so once more.
    tags
        Dagster's tags of versions, see `Provenance`.
    """

    key: AssetKey
    partition: str | None
    metadata: Mapping[str, Any] | None = None
    planned: bool = False
    again: bool = False
    tags: Mapping[str, str] | None = None


def write_marks(instance: DagsterInstance, marks: Iterable[Mark], origin: Origin = Origin()) -> int:
    """Write marks to the event log, in their order for each table, and return how many."""
    ordered = sorted(marks, key=lambda mark: tuple(mark.key.path))
    for _, of_one_table in groupby(ordered, key=lambda mark: mark.key):
        _store(instance, [_entry(mark, origin) for mark in of_one_table])
    return len(ordered)


def observe(
    instance: DagsterInstance, key: AssetKey, metadata: Mapping[str, Any], origin: Origin
) -> None:
    """Put metadata into a table's own events, with no word on its rows."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_OBSERVATION.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=AssetObservationData(AssetObservation(key, metadata=metadata)),
    )
    instance.report_dagster_event(event, run_id=origin.run_id)


def _entry(mark: Mark, origin: Origin) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=logging.INFO if mark.planned else logging.DEBUG,
        user_message="",
        run_id=origin.run_id,
        timestamp=time.time(),
        step_key=origin.step_key,
        job_name=origin.job_name,
        dagster_event=_planned(mark, origin) if mark.planned else _materialized(mark, origin),
    )


def _planned(mark: Mark, origin: Origin) -> DagsterEvent:
    data = AssetMaterializationPlannedData(mark.key, partition=mark.partition)
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=data,
        message=f"{mark.key.to_user_string()} was to have rows for {mark.partition}.",
    )


def _materialized(mark: Mark, origin: Origin) -> DagsterEvent:
    materialization = AssetMaterialization(
        mark.key, partition=mark.partition, metadata=mark.metadata, tags=mark.tags
    )
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=StepMaterializationData(materialization),
        message=f"{mark.key.to_user_string()} has rows for {mark.partition}.",
    )


def _store(instance: DagsterInstance, entries: Sequence[EventLogEntry]) -> None:
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        _store_in_sqlite(storage, entries)
    else:
        storage.store_event_batch(entries)


def _store_in_sqlite(storage: SqliteEventLogStorage, entries: Sequence[EventLogEntry]) -> None:
    """Do what `SqliteEventLogStorage.store_event` does, for all entries of one table and run."""
    rows = [storage._event_to_row(entry) for entry in entries]
    insert = SqlEventLogStorageTable.insert()
    with storage.run_connection(entries[0].run_id) as connection:
        connection.execute(insert, rows)
    # The index has its own copy of what concerns assets, across runs.
    with storage.index_transaction() as connection:
        connection.execute(insert, rows)
        # Nobody else writes meanwhile: the numbers follow one another.
        last = connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
        ids = range(last - len(rows) + 1, last + 1)
        storage._store_asset_event_tags(connection, entries, ids)
        for entry, event_id in _last_of_each_kind(entries, ids):
            storage._store_asset_event(connection, entry, event_id)


def _last_of_each_kind(
    entries: Sequence[EventLogEntry], ids: Sequence[int]
) -> Iterable[tuple[EventLogEntry, int]]:
    """Return the entries that decide what the table's summary says."""
    last = {entry.dagster_event_type: (entry, id_) for entry, id_ in zip(entries, ids, strict=True)}
    return last.values()
