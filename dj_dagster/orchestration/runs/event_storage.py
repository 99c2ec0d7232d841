"""Batches of events in Dagster's storages: PostgreSQL, SQLite's files, and any other.

Dagster writes each event in a transaction of its own, 50 to 200 a second in SQLite. A batch goes to
PostgreSQL in one statement, in which what all its events share is written once. In SQLite it takes
one transaction a file: Dagster keeps the events of each run in a file, and those of assets once
more in the index of all runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dagster import DagsterEventType, DagsterInstance
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Connection as SAConnection

from dj_dagster.orchestration._dagster import (
    RUNLESS_RUN_ID,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)
from dj_dagster.orchestration.runs.marks import Batch

Row = dict[str, Any]


def store_batch(instance: DagsterInstance, batch: Batch) -> None:
    """Store the events of a batch, all at once where the storage can."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        _store_in_sqlite(storage, batch)
    elif isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            if connection.dialect.name == "postgresql":
                _store_in_postgresql(storage, connection, batch)
                return
        if batch.event_type is DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            _store_plans(storage, batch)
        else:
            storage.store_event_batch(batch.entries())
    else:
        storage.store_event_batch(batch.entries())


def _store_plans(storage: SqlEventLogStorage, batch: Batch) -> None:
    """Store all events as `store_event` does; Dagster itself does not batch plans."""
    with storage.index_connection() as connection:
        connection.execute(storage.prepare_insert_event_batch(batch.entries()))
    with storage.index_transaction() as connection:
        # Plans are without tags, and the table's summary does not keep their numbers.
        storage._store_asset_event(connection, batch.last, 0)


def _store_in_sqlite(storage: SqliteEventLogStorage, batch: Batch) -> None:
    times = _stored_times(batch)
    shared = _shared(batch)
    rows = [
        {**shared, "event": text, "timestamp": at, "partition": mark.partition}
        for mark, text, at in zip(batch.marks, batch.texts(), times, strict=True)
    ]
    insert = SqlEventLogStorageTable.insert()
    if batch.origin.run_id != RUNLESS_RUN_ID:
        with storage.run_connection(batch.origin.run_id) as connection:
            connection.execute(insert, rows)
    # The file of events without a run is never read for those of assets.
    with storage.index_transaction() as connection:
        connection.execute(insert, rows)
        # Other clients cannot write meanwhile, so the numbers follow one another.
        last = connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
        first = last - len(rows) + 1
        tags = [
            {
                "event_id": first + place,
                "asset_key": shared["asset_key"],
                "key": name,
                "value": value,
                "event_timestamp": times[place],
            }
            for place, name, value in _indexed_tags(storage, batch)
        ]
        if tags and _has_tags(connection):
            connection.execute(AssetEventTagsTable.insert(), tags)
        storage._store_asset_event(connection, batch.last, last)


def _store_in_postgresql(
    storage: SqlEventLogStorage, connection: SAConnection, batch: Batch
) -> None:
    tags = list(_indexed_tags(storage, batch))
    given: Row = {
        **_shared(batch),
        "events": batch.texts(),
        "timestamps": _stored_times(batch),
        "partitions": [mark.partition for mark in batch.marks],
    }
    if tags and _has_tags(connection):
        places, names, values = zip(*tags, strict=True)
        given |= {"places": list(places), "names": list(names), "values": list(values)}
        last = connection.execute(_INSERT_TAGGED, given).scalar_one()
    else:
        last = connection.execute(_INSERT, given).scalar_one()
    storage._store_asset_event(connection, batch.last, last)


def _arrays(**types: Any) -> sa.TableValuedAlias:
    """Return a table of which each column is given as an array, with a column `place` from 1."""
    arrays = [
        sa.cast(sa.bindparam(f"{name}s", type_=ARRAY(type_)), ARRAY(type_))
        for name, type_ in types.items()
    ]
    return sa.func.unnest(*arrays).table_valued(*types, with_ordinality="number").render_derived()


def _insertion() -> Any:
    """Return the statement part that inserts events, and gives their numbers in order."""
    given = _arrays(event=sa.Text(), timestamp=sa.TIMESTAMP(), partition=sa.Text())
    alike = ["run_id", "dagster_event_type", "step_key", "asset_key"]
    return (
        SqlEventLogStorageTable.insert()
        .from_select(
            [*alike, "event", "timestamp", "partition"],
            sa.select(
                *(sa.cast(sa.bindparam(name), sa.Text()) for name in alike),
                given.c.event,
                given.c.timestamp,
                given.c.partition,
            ).order_by(given.c.number),
        )
        .returning(SqlEventLogStorageTable.c.id, SqlEventLogStorageTable.c.timestamp)
        .cte("new")
    )


def _tagging(new: Any) -> Any:
    """Return the statement part that inserts the tags of new events."""
    given = _arrays(place=sa.Integer(), name=sa.Text(), value=sa.Text())
    # PostgreSQL gives numbers in the order of the events, see `_insertion`.
    place = (sa.func.row_number().over(order_by=new.c.id) - 1).label("place")
    numbered = sa.select(new.c.id, new.c.timestamp, place).subquery("numbered")
    return (
        AssetEventTagsTable.insert()
        .from_select(
            ["event_id", "asset_key", "key", "value", "event_timestamp"],
            sa.select(
                numbered.c.id,
                sa.cast(sa.bindparam("asset_key"), sa.Text()),
                given.c.name,
                given.c.value,
                numbered.c.timestamp,
            ).join_from(numbered, given, numbered.c.place == given.c.place),
        )
        .cte("tagged")
    )


def _statements() -> tuple[sa.Select[Any], sa.Select[Any]]:
    new = _insertion()
    last = sa.select(sa.func.max(new.c.id))
    return last, last.add_cte(_tagging(new))


_INSERT, _INSERT_TAGGED = _statements()
"""Statements that insert events, without and with tags, and return the last event's number."""


def _shared(batch: Batch) -> Row:
    """Return what all events of a batch have in common, by column."""
    return {
        "run_id": batch.origin.run_id,
        "dagster_event_type": batch.event_type.value,
        "step_key": batch.origin.step_key,
        "asset_key": batch.key.to_string(),
    }


def _stored_times(batch: Batch) -> list[datetime]:
    # Dagster stores times in UTC, without a time zone.
    return [datetime.fromtimestamp(at, UTC).replace(tzinfo=None) for at in batch.times]


def _indexed_tags(storage: SqlEventLogStorage, batch: Batch) -> Iterator[tuple[int, str, str]]:
    """Yield those tags that Dagster finds events by: the event's place, the tag's name, value."""
    indexed: dict[tuple[str, ...], set[str]] = {}
    for place, mark in enumerate(batch.marks):
        if mark.tags:
            names = tuple(mark.tags)
            if names not in indexed:
                indexed[names] = storage.get_asset_tags_to_index(set(names))
            for name in indexed[names]:
                yield place, name, mark.tags[name]


def _has_tags(connection: SAConnection) -> bool:
    """Whether there is the table of tags, which `dagster instance migrate` gives older storages."""
    return sa.inspect(connection).has_table(AssetEventTagsTable.name)
