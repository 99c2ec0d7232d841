"""Dagster's history of tables, made shorter without a change in what Dagster shows of keys."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, RunsFilter

from dj_dagster.errors import ConfigurationError
from dj_dagster.orchestration._dagster import (
    BACKFILL_ID_TAG,
    NOT_FINISHED_STATUSES,
    RUNLESS_RUN_ID,
    SqlEventLogStorage,
)
from dj_dagster.orchestration.inspection.location import Given, graph_of
from dj_dagster.orchestration.inspection.project import dagster_instance
from dj_dagster.orchestration.jobs.populate_job import table_names
from dj_dagster.orchestration.runs.run_records import ALL
from dj_dagster.orchestration.runs.superseded import (
    MATERIALIZATION,
    OBSERVATION,
    PLAN,
    delete,
    events_left,
    log_lines,
    shrink,
    superseded,
)
from dj_dagster.orchestration.tables.table_graph import Tables
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.database.connection import Connection

RUNS = 500
"""Runs of one query, at most."""

_AT_WORK = ("REQUESTED", "CANCELING", "FAILING")
"""The states of backfills that are unfinished."""


@dataclass(frozen=True)
class CompactedTable:
    """The numbers of events of a table that were deleted, or would be.

    Attributes
    ----------
    marks, plans, notes
        Materialisations, planned materialisations and observations.
    log_lines
        Lines in the logs of runs that have no event of a table left.
    """

    table: str
    marks: int = 0
    plans: int = 0
    notes: int = 0
    log_lines: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.marks + self.plans + self.notes + self.log_lines


def compact_events(
    given: Given | Iterable[Given],
    tables: Tables,
    *,
    before: datetime | timedelta,
    keep: int = 1,
    dry_run: bool = False,
    instance: DagsterInstance | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    connection: Connection | None = None,
) -> list[CompactedTable]:
    """Delete old events of tables from Dagster's event log where younger ones are there.

    What Dagster shows stays: of each partition the last materialisation, plan and note, whatever
    their age, and with them which partitions are materialised, failed, missing or stale. Events of
    unfinished runs and backfills stay too. A run all of whose events of tables went loses the lines
    that were logged in it; its own events stay, such as its start and its failure.

    Parameters
    ----------
    given, connection
        The result of `build_definitions`, or what it takes.
    tables
        Tables by name, class or asset key; ``"all"`` for all of them.
    before
        Only events that are older than this time, or of at least this age, are deleted.
    keep
        The number of events of each kind that stay for each partition, at least.
    dry_run
        Whether events are only counted.
    instance
        The Dagster instance; by default that of DAGSTER_HOME or, where this is not set, of the
        ``dagster.yaml`` in the working directory.
    progress
        Called with a table, the number of its deleted events, and the number of all to delete.

    Returns
    -------
    list of CompactedTable
        The numbers of deleted events, by table.

    Raises
    ------
    ConfigurationError
        When `tables` is empty or has a name that is not the name of a table; if `keep` is below 1,
        or `before` outside of the years 1 to 9999; when a Dagster instance is not found, or keeps
        its events elsewhere than in SQL.
    """
    if keep < 1:
        raise ConfigurationError(f"keep={keep} would delete the state of keys. Keep 1 at least.")
    graph, names = graph_of(given, connection=connection), table_names(tables)
    nodes = list(graph.nodes) if names == ALL else graph.chosen(names, "tables")
    instance = dagster_instance() if instance is None else instance
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise ConfigurationError(
            f"{type(storage).__name__} does not keep its events in SQL, where they could be "
            "compacted. Use Dagster's SQLite or PostgreSQL storage."
        )
    # A greater number than storages know keeps all, as the greatest does.
    kept = min(keep, sys.maxsize)
    work = _Compaction(instance, storage, _utc(before), kept, dry_run=dry_run)
    done = [work.compact(node, progress) for node in nodes]
    work.shrink()
    return done


def _utc(before: datetime | timedelta) -> datetime:
    """Return a time as Dagster stores it, in UTC without a time zone."""
    try:
        moment = datetime.now(UTC) - before if isinstance(before, timedelta) else before
        return moment.astimezone(UTC).replace(tzinfo=None)
    except (OverflowError, ValueError) as error:
        raise ConfigurationError(
            f"before={before} is outside of the years 1 to 9999. Write an age such as 90 days, or "
            "a date."
        ) from error


class _Compaction:
    """One compaction of some tables."""

    def __init__(
        self,
        instance: DagsterInstance,
        storage: SqlEventLogStorage,
        before: datetime,
        keep: int,
        *,
        dry_run: bool,
    ) -> None:
        self._instance, self._storage = instance, storage
        self._before, self._keep, self._dry_run = before, keep, dry_run
        self._busy = _busy(instance)
        # The number of deleted events of each run, or of those that would be.
        self._counted: Counter[str] = Counter()

    def compact(
        self, node: TableNode, progress: Callable[[str, int, int], None] | None
    ) -> CompactedTable:
        events = superseded(
            self._storage, node.key, before=self._before, keep=self._keep, busy=self._busy
        )
        kinds, runs = Counter[str](), Counter[str]()
        done = 0
        for gone in [events] if self._dry_run else delete(self._storage, node.key, events):
            kinds.update(event.type for event in gone)
            runs.update(event.run_id for event in gone)
            done += len(gone)
            if progress is not None and not self._dry_run:
                progress(node.title, done, len(events))
        lines = self._shorten_logs(runs)
        return CompactedTable(
            node.title, kinds[MATERIALIZATION], kinds[PLAN], kinds[OBSERVATION], lines
        )

    def _shorten_logs(self, runs: Counter[str]) -> int:
        """Remove the lines of runs that have no event of a table left; return their number."""
        left = Counter(events_left(self._storage, runs))
        self._counted.update(runs)
        if self._dry_run:
            left -= self._counted
        ended = self._ended_before([run for run in runs if not left[run]])
        return sum(log_lines(self._storage, run, remove=not self._dry_run) for run in ended)

    def shrink(self) -> None:
        """Give the space of the deleted events in the files of runs back."""
        for run in () if self._dry_run else self._counted:
            shrink(self._storage, run)

    def _ended_before(self, runs: Collection[str]) -> list[str]:
        wanted = sorted(set(runs) - {RUNLESS_RUN_ID})
        found: list[str] = []
        for start in range(0, len(wanted), RUNS):
            some = RunsFilter(run_ids=wanted[start : start + RUNS])
            for record in self._instance.get_run_records(some):
                ended = record.end_time
                if ended is not None and ended < self._before.replace(tzinfo=UTC).timestamp():
                    found.append(record.dagster_run.run_id)
        return found


def _busy(instance: DagsterInstance) -> set[str]:
    """Return the runs that are unfinished, or belong to a backfill that is."""
    runs = set(instance.get_run_ids(RunsFilter(statuses=list(NOT_FINISHED_STATUSES))))
    for backfill in instance.get_backfills():
        if backfill.status.value in _AT_WORK:
            of_backfill = RunsFilter(tags={BACKFILL_ID_TAG: backfill.backfill_id})
            runs.update(instance.get_run_ids(of_backfill))
    return runs
