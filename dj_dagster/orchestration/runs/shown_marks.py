"""Marks that Dagster shows of partitions: read, found missing, taken back.

Marks of rows that are gone are taken back. Most deleted rows are made again, or their partitions go
with them. The marks of other rows remain: of keys that the key source leaves out by now, of keys
below a failing key, and of rows that people have deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter

from dj_dagster.orchestration._dagster import (
    NOT_FINISHED_STATUSES,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
)
from dj_dagster.orchestration.runs.data_versions import last_marks
from dj_dagster.orchestration.runs.event_log import Mark, write_marks
from dj_dagster.orchestration.tables.keys import Regions, present_among, present_in, present_pages
from dj_dagster.orchestration.tables.table_node import TableNode

CHUNK = 10_000
"""Partitions of one query of the event log, at most; SQLite limits a statement's variables."""

RUNS = 500
"""Runs of one query, at most."""

_MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION
_PLAN = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_OBSERVATION = DagsterEventType.ASSET_OBSERVATION

State = Literal["made", "failed", "running", "missing"]


@dataclass(frozen=True, slots=True)
class Shown:
    """The state of one partition as Dagster shows it.

    Attributes
    ----------
    state
        ``failed`` if the last plan, without a later materialisation, is of a failed run;
        ``running`` if it is of an unfinished run.
    marked
        Whether the partition has a materialisation at all.
    noted
        Whether its page has a note that is younger than the last plan.
    """

    state: State = "missing"
    marked: bool = False
    noted: bool = False


MISSING = Shown()


def shown(
    instance: DagsterInstance, key: AssetKey, partitions: Collection[str], *, notes: bool = False
) -> dict[str, Shown]:
    """Return the states of those of some partitions of a table that Dagster shows something of.

    Parameters
    ----------
    notes
        Whether to read `Shown.noted`.
    """
    kinds = (_MATERIALIZATION, _PLAN, _OBSERVATION) if notes else (_MATERIALIZATION, _PLAN)
    found: dict[str, Shown] = {}
    for chunk in _chunks(list(partitions), CHUNK):
        last = _last_events(instance, key, kinds, chunk)
        made, plans, noted = last[_MATERIALIZATION], last[_PLAN], last.get(_OBSERVATION, {})
        found |= dict.fromkeys(made, Shown("made", marked=True))
        tried = {p: plan for p, plan in plans.items() if plan > made.get(p, 0)}
        for partition, state in _states(instance, key, tried).items():
            later = noted.get(partition, 0) > tried[partition]
            found[partition] = Shown(state, partition in made, later)
    return found


def shown_as_failed(instance: DagsterInstance, key: AssetKey) -> list[str]:
    """Return all partitions of a table that are shown as failed."""
    storage = instance.event_log_storage
    plans = storage.get_latest_storage_id_by_partition(key, _PLAN)
    found = shown(instance, key, plans)
    return [partition for partition, each in found.items() if each.state == "failed"]


def _last_events(
    instance: DagsterInstance,
    key: AssetKey,
    kinds: Sequence[DagsterEventType],
    partitions: Sequence[str],
) -> Mapping[DagsterEventType, Mapping[str, int]]:
    """Return the numbers of the last events of each kind, by partition."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        wanted = set(partitions)
        return {
            kind: storage.get_latest_storage_id_by_partition(key, kind, wanted) for kind in kinds
        }
    # One statement for all kinds: the partitions' names take most of its time.
    last = storage._latest_event_ids_by_partition_subquery(key, kinds, partitions)
    query = sa.select(last.c.dagster_event_type, last.c.partition, last.c.id)
    found: dict[DagsterEventType, dict[str, int]] = {kind: {} for kind in kinds}
    with storage.index_connection() as connection:
        for kind, partition, number in connection.execute(query):
            found[DagsterEventType(kind)][partition] = number
    return found


def _states(instance: DagsterInstance, key: AssetKey, plans: Mapping[str, int]) -> dict[str, State]:
    """Return the states of partitions whose plans are of failed or unfinished runs."""
    if not plans:
        return {}
    runs = _runs_of(instance, key, plans)
    ids = sorted(set(runs.values()))
    failed = _having(instance, ids, [DagsterRunStatus.FAILURE])
    unfinished = _having(instance, ids, list(NOT_FINISHED_STATUSES))
    states: dict[str, State] = dict.fromkeys(failed, "failed")
    states |= dict.fromkeys(unfinished, "running")
    return {partition: states[run] for partition, run in runs.items() if run in states}


def _runs_of(instance: DagsterInstance, key: AssetKey, plans: Mapping[str, int]) -> dict[str, str]:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        every = storage.get_latest_asset_partition_materialization_attempts_without_materializations
        return {p: run for p, (run, _) in every(key).items() if p in plans}
    events = SqlEventLogStorageTable.c
    query = sa.select(events.id, events.run_id).where(events.id.in_(list(plans.values())))
    with storage.index_connection() as connection:
        rows = connection.execute(query).all()
    runs: dict[int, str] = {number: run for number, run, *_ in rows}
    return {partition: runs[plan] for partition, plan in plans.items() if plan in runs}


def _having(
    instance: DagsterInstance, run_ids: Sequence[str], statuses: list[DagsterRunStatus]
) -> set[str]:
    """Return those of some runs that are in one of the statuses."""
    found: set[str] = set()
    for chunk in _chunks(run_ids, RUNS):
        found.update(instance.get_run_ids(RunsFilter(run_ids=list(chunk), statuses=statuses)))
    return found


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


ROWS = "dagster/row_count"


def unmarked_pages(instance: DagsterInstance, node: TableNode) -> Iterator[list[str]]:
    """Yield the `unmarked` partitions of a whole table, page by page."""
    for page in present_pages(node):
        yield unmarked(instance, node, page)


def unmarked_in(instance: DagsterInstance, node: TableNode, regions: Regions) -> list[str]:
    """Return the `unmarked` partitions that have rows in some regions."""
    return unmarked(instance, node, present_in(node, regions))


def unmarked(instance: DagsterInstance, node: TableNode, partitions: list[str]) -> list[str]:
    """Return those of some partitions with rows that are finished and without a mark in Dagster."""
    known = shown(instance, node.key, partitions)
    return node.finished([p for p in partitions if not known.get(p, MISSING).marked])


def repeated(
    instance: DagsterInstance, node: TableNode, partitions: Collection[str]
) -> dict[str, Mark]:
    """Return marks that repeat the last materialisations of some partitions."""
    records = last_marks(instance, node.key, partitions) if partitions else ()
    found = {record.partition_key or "": record.asset_materialization for record in records}
    return {
        partition: Mark(node.key, partition, mark.metadata, again=True, tags=mark.tags)
        for partition, mark in found.items()
        if mark is not None
    }


def mark_row_count(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table without partitions with its number of rows, if that number has changed.

    Returns the number of marks written.
    """
    rows = len(node.table)
    if rows == (_marked_row_count(instance, node.key) or 0):
        return 0
    return write_marks(instance, [Mark(node.key, None, {ROWS: rows})])


def mark_single(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table that `make` fills and that has at most one row, if it is unmarked.

    Returns the number of marks written.
    """
    if instance.get_latest_materialization_event(node.key) is not None or not node.table:
        return 0
    return write_marks(instance, [Mark(node.key, None)])


def _marked_row_count(instance: DagsterInstance, key: AssetKey) -> object:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(ROWS)
    return None if value is None else value.value


_MADE = DagsterEventType.ASSET_MATERIALIZATION


def vanished_pages(
    instance: DagsterInstance, node: TableNode, keys: Sequence[AssetKey]
) -> Iterator[list[str]]:
    """Take back the marks of rows that are gone, piece by piece.

    Parameters
    ----------
    node
        The table whose rows are compared with the marks.
    keys
        The assets whose marks follow its rows: the table itself, and its parts.

    Yields
    ------
    list of str
        After each piece of work, the partitions without rows whose marks it has taken back.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        # Dagster itself cannot wipe single partitions.
        return
    # The marks of rows that come during this work have greater numbers.
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
    # Dagster's cache would go on showing these partitions as materialised.
    storage.wipe_asset_cached_status(key)
