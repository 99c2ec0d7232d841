"""What Dagster shows of single partitions, read from its event log and runs as its UI reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable

CHUNK = 10_000
"""Partitions that the event log is asked for at once; SQLite limits a statement's variables."""

RUNS = 500
"""Runs that are asked for at once."""

MADE = DagsterEventType.ASSET_MATERIALIZATION
PLANNED = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
NOTED = DagsterEventType.ASSET_OBSERVATION

State = Literal["made", "failed", "running", "missing"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What Dagster shows of one partition.

    Attributes
    ----------
    state
        ``failed`` while the last plan is of a run that failed, ``running`` while that goes on.
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
    """Return what is shown of some partitions of a table; those of which nothing is are left out.

    Parameters
    ----------
    notes
        Whether `Shown.noted` is wanted.
    """
    kinds = (MADE, PLANNED, NOTED) if notes else (MADE, PLANNED)
    found: dict[str, Shown] = {}
    for chunk in _chunks(list(partitions), CHUNK):
        last = _last_events(instance, key, kinds, chunk)
        made, plans, noted = last[MADE], last[PLANNED], last.get(NOTED, {})
        found |= dict.fromkeys(made, Shown("made", marked=True))
        tried = {p: plan for p, plan in plans.items() if plan > made.get(p, 0)}
        for partition, state in _states(instance, key, tried).items():
            later = noted.get(partition, 0) > tried[partition]
            found[partition] = Shown(state, partition in made, later)
    return found


def shown_as_failed(instance: DagsterInstance, key: AssetKey) -> list[str]:
    """Return all partitions of a table that are shown as failed."""
    storage = instance.event_log_storage
    plans = storage.get_latest_storage_id_by_partition(key, PLANNED)
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
    # One statement for all kinds: most of its time goes into the partitions' names.
    last = storage._latest_event_ids_by_partition_subquery(key, kinds, partitions)
    query = sa.select(last.c.dagster_event_type, last.c.partition, last.c.id)
    found: dict[DagsterEventType, dict[str, int]] = {kind: {} for kind in kinds}
    with storage.index_connection() as connection:
        for kind, partition, number in connection.execute(query):
            found[DagsterEventType(kind)][partition] = number
    return found


def _states(instance: DagsterInstance, key: AssetKey, plans: Mapping[str, int]) -> dict[str, State]:
    """Return what the plans of some partitions say: those of runs that failed, or go on."""
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
    """Return those runs, of some, that are in one of the statuses."""
    found: set[str] = set()
    for chunk in _chunks(run_ids, RUNS):
        found.update(instance.get_run_ids(RunsFilter(run_ids=list(chunk), statuses=statuses)))
    return found


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
