"""Batches of events for Dagster's event log, for any Dagster project.

Dagster logs each event in a transaction of its own, 50 to 200 a second in SQLite; an event per key
and table would then cost more than the work itself. Here all events of a batch go to the storage
together: by the storage's own batch write where it has one (PostgreSQL), and by one transaction a
file in SQLite, for which Dagster does not have a batch write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dagster import DagsterEventType, DagsterInstance, EventLogEntry

from dj_dagster.orchestration._dagster import (
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
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
