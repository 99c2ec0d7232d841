"""Marks of partitions in Dagster's event log, and its batches, for any Dagster project.

Dagster logs each event in a transaction of its own, 50 to 200 a second in SQLite; an event per key
and table would then cost more than the work itself. Here all events of a batch go to the storage
together: by the storage's own batch write where it has one (PostgreSQL), and by one transaction a
file in SQLite, for which Dagster does not have a batch write. Nothing here knows of tables.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from dagster import (
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
)
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.orchestration._dagster import (
    RUNLESS_JOB_NAME,
    RUNLESS_RUN_ID,
    AssetMaterializationPlannedData,
    AssetObservationData,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    StepMaterializationData,
)


def store_events(instance: DagsterInstance, entries: Sequence[EventLogEntry]) -> None:
    """Store events of one asset, one run and one type, all at once.

    Parameters
    ----------
    entries
        Materialisations, plans or observations, in the order in which they are to be read.
    """
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        _store_in_sqlite(storage, entries)
    elif (
        isinstance(storage, SqlEventLogStorage)
        and entries[0].dagster_event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    ):
        _store_plans(storage, entries)
    else:
        storage.store_event_batch(entries)


def _store_plans(storage: SqlEventLogStorage, entries: Sequence[EventLogEntry]) -> None:
    """Store all entries as `store_event` does; Dagster itself does not batch plans."""
    with storage.index_connection() as connection:
        connection.execute(storage.prepare_insert_event_batch(entries))
    with storage.index_transaction() as connection:
        # Plans are without tags, and the table's summary does not keep their numbers.
        storage._store_asset_event(connection, entries[-1], 0)


def _store_in_sqlite(storage: SqliteEventLogStorage, entries: Sequence[EventLogEntry]) -> None:
    """Store all entries of one table and run as `SqliteEventLogStorage.store_event` does."""
    rows = [storage._event_to_row(entry) for entry in entries]
    insert = SqlEventLogStorageTable.insert()
    with storage.run_connection(entries[0].run_id) as connection:
        connection.execute(insert, rows)
    # The index has its own copy of the events of assets, across runs.
    with storage.index_transaction() as connection:
        connection.execute(insert, rows)
        # Other clients cannot write meanwhile, so the numbers follow one another.
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


MADE, PLANNED, NOTED = range(3)
"""Kinds of marks."""

OUT_OF_ORDER = 1_000
"""Numbers of events that may be given before an event becomes visible to others, at most."""

LEAD = 10.0
"""Seconds that a mark's time may be ahead of the clock when many marks share a millisecond."""


@dataclass(frozen=True)
class Origin:
    """The step that a mark belongs to; by default it is outside of runs, as for entered rows."""

    run_id: str = RUNLESS_RUN_ID
    job_name: str = RUNLESS_JOB_NAME
    step_key: str | None = None


@dataclass(frozen=True)
class Mark:
    """One line of the event log: a table's partition has its rows, or is `planned` to have them.

    Dagster shows a partition as failed when its last plan is from a failed run and a
    materialisation does not follow. `partition` is None for tables without partitions.

    Attributes
    ----------
    again
        Whether the rows were there and marked before, so that the mark only repeats this.
    tags
        Dagster's tags of versions, see `Provenance`.
    note
        A text for the partition's page. The mark is then an observation in Dagster's terms, and
        does not tell of rows.
    time
        The time of the mark; written marks of a table differ in it by a millisecond at least.
    """

    key: AssetKey
    partition: str | None
    metadata: Mapping[str, Any] | None = None
    planned: bool = False
    again: bool = False
    tags: Mapping[str, str] | None = None
    note: str | None = None
    time: float = field(default_factory=time.time, compare=False)

    @property
    def kind(self) -> int:
        """`MADE` for rows that are there, `PLANNED` or `NOTED`."""
        return NOTED if self.note is not None else int(self.planned)


class Clock:
    """A clock that gives each mark of a table a millisecond of its own, after that of the last.

    The UI shows only one of several events with the same millisecond.
    """

    def __init__(self) -> None:
        self._last: dict[AssetKey, int] = {}
        self._lock = threading.Lock()

    def times(self, key: AssetKey, wanted: Iterable[float]) -> list[float]:
        """Return the wanted times, or times that are a little later.

        No time is moved to more than `LEAD` ahead of the clock; times that would be share one.
        """
        found: list[float] = []
        with self._lock:
            # In whole milliseconds, as the UI reads them; halves keep clear of rounding.
            last, most = self._last.get(key, 0), int((time.time() + LEAD) * 1000)
            for each in wanted:
                instant = int(each * 1000)
                if instant <= last:
                    instant = last + 1 if last < most else last
                    each = (instant + 0.5) / 1000
                last = instant
                found.append(each)
            self._last[key] = last
        return found


_CLOCK = Clock()


def write_marks(instance: DagsterInstance, marks: Iterable[Mark], origin: Origin = Origin()) -> int:
    """Write marks to the event log, and return how many.

    The marks of one table are written in their order, except that plans come first and notes last.
    Dagster caches the partitions with events: it reads first the number of the last
    materialisation, then that of the last plan, and goes on behind the greater one. It would
    therefore never see materialisations that are written between the two reads if a plan followed
    them.
    """
    given = sorted(marks, key=lambda mark: tuple(mark.key.path))
    made = {(mark.key, mark.partition) for mark in given if mark.kind == MADE}
    for key, group in groupby(given, key=lambda mark: mark.key):
        alike = list(group)
        times = _CLOCK.times(key, [mark.time for mark in alike])
        timed = sorted(zip(alike, times, strict=True), key=lambda each: _place(each[0], made))
        for _, some in groupby(timed, key=lambda each: _place(each[0], made)):
            store_events(instance, [_entry(mark, origin, at) for mark, at in some])
    return len(given)


class MarkWatch:
    """A watch on all assets of a Dagster instance that sees new marks, whoever wrote them."""

    def __init__(self) -> None:
        # The last event that was seen, and the last marks by asset.
        self._seen: int | None = None
        self._last: dict[str, int] = {}

    def marked(self, connection: SAConnection) -> set[AssetKey]:
        """Return the assets with marks since the last look, and an empty set at the first look.

        Parameters
        ----------
        connection
            A connection to the index of the event log.
        """
        columns, is_first = SqlEventLogStorageTable.c, self._seen is None
        seen = self._seen
        if seen is None:
            seen = connection.execute(sa.select(sa.func.max(columns.id))).scalar() or 0
        found = connection.execute(
            sa.select(columns.asset_key, sa.func.max(columns.id))
            .where(columns.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value)
            .where(columns.id > seen - OUT_OF_ORDER)
            .group_by(columns.asset_key)
        )
        last = {str(key): int(number) for key, number in found if key is not None}
        new = [key for key, number in last.items() if number > self._last.get(key, 0)]
        self._last.update(last)
        self._seen = max(seen, *self._last.values(), 0)
        keys = [] if is_first else map(AssetKey.from_db_string, new)
        return {key for key in keys if key is not None}


def _place(mark: Mark, made: Container[tuple[AssetKey, str | None]]) -> int:
    """Return the place of a mark in the order of writing the marks of its table."""
    if not mark.planned:
        return mark.kind + 1
    # A plan and a materialisation of one partition: the plan comes later, to show it as failed.
    return 2 if (mark.key, mark.partition) in made else 0


def observe(
    instance: DagsterInstance, key: AssetKey, metadata: Mapping[str, Any], origin: Origin
) -> None:
    """Put metadata into a table's own events, without a materialisation."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_OBSERVATION.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=AssetObservationData(AssetObservation(key, metadata=metadata)),
    )
    instance.report_dagster_event(event, run_id=origin.run_id)


def _entry(mark: Mark, origin: Origin, timestamp: float) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=logging.INFO if mark.planned else logging.DEBUG,
        user_message="",
        run_id=origin.run_id,
        timestamp=timestamp,
        step_key=origin.step_key,
        job_name=origin.job_name,
        dagster_event=_EVENTS[mark.kind](mark, origin),
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


def _noted(mark: Mark, origin: Origin) -> DagsterEvent:
    observation = AssetObservation(
        mark.key,
        description=mark.note,
        partition=mark.partition,
        metadata=mark.metadata,
        tags=mark.tags,
    )
    return DagsterEvent(
        event_type_value=DagsterEventType.ASSET_OBSERVATION.value,
        job_name=origin.job_name,
        step_key=origin.step_key,
        event_specific_data=AssetObservationData(observation),
        message=f"{mark.key.to_user_string()}, {mark.partition}: {mark.note}",
    )


_EVENTS = (_materialized, _planned, _noted)
"""The functions that make an event of a mark, by its `kind`."""
