"""Records of runs: attempts of a batch, keys that runs hold, runs whose process is gone.

A code server reports the end of the run processes that it has started. After a restart it does not
know the earlier processes, and Dagster would take their runs to be at work for ever, and so hold
their keys.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import cached_property
from itertools import takewhile

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)

from dj_dagster.errors import DataJointError
from dj_dagster.orchestration._dagster import NOT_FINISHED_STATUSES, RUN_KEY_TAG
from dj_dagster.orchestration.runs.chosen_keys import RunChoice
from dj_dagster.orchestration.tables.keys import Key, decoded
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.workflow.liveness import is_gone, process_mark

BATCH_TAG = "dj_dagster/batch"
FAILED_TAG = "dj_dagster/failed"
"""The tag with the number of keys that the run has reported as failed."""

PAUSE = 15.0
"""Seconds from a run that could not start to the next one, doubled after each further such run."""

LONGEST_PAUSE = 600.0


class Refusal(Enum):
    """The reasons against a further run of a batch: it is not run any more, or not yet."""

    EXHAUSTED = auto()
    LATER = auto()


@dataclass(frozen=True)
class Attempts:
    """The runs of one batch so far, the newest first.

    If a run has made keys of a batch that is pending again, the rows were lost since. The runs
    before that one then do not count any more.
    """

    records: Sequence[RunRecord]
    instance: DagsterInstance

    @classmethod
    def read(cls, instance: DagsterInstance, digest: str) -> Attempts:
        """Read the runs of a batch."""
        return cls(instance.get_run_records(RunsFilter(tags={BATCH_TAG: digest})), instance)

    @property
    def next_number(self) -> int:
        """The number of the next run, greater than all before, also if old runs were deleted."""
        return max([len(self.records), *map(_number, self.records)]) + 1

    @property
    def has_died(self) -> bool:
        """Whether a run has failed midway without reporting failed keys."""
        return any(r.dagster_run.status is DagsterRunStatus.FAILURE for r in self._silent)

    def refusal(self, limit: int) -> Refusal | None:
        """Return the reason against a run of the batch now, None to run it.

        Parameters
        ----------
        limit
            The number of runs in a row that may end without making keys or reporting failed ones.
            Runs that could not start are not counted: they are repeated without end, but ever less
            often.
        """
        if any(not record.dagster_run.is_finished for record in self.records):
            return Refusal.LATER
        if len(self._silent) >= limit:
            return Refusal.EXHAUSTED
        return None if time.time() >= self._due else Refusal.LATER

    @cached_property
    def _silent(self) -> list[RunRecord]:
        """The started runs since the last progress that left the keys pending without a report."""
        # A run that reported failed keys has done its work; their next attempt does not count.
        silent = (record for record in self.records if not _has_told(record))
        began = (record for record in silent if not _could_not_start(record))
        return list(takewhile(lambda record: not self._has_made(record), began))

    def _has_made(self, record: RunRecord) -> bool:
        made = DagsterEventType.ASSET_MATERIALIZATION
        run_id = record.dagster_run.run_id
        return bool(self.instance.get_records_for_run(run_id, of_type=made, limit=1).records)

    @property
    def _due(self) -> float:
        ended = [r.end_time or 0.0 for r in takewhile(_could_not_start, self.records)]
        return max(ended) + pause_after(len(ended)) if ended else 0.0


def pause_after(failures: int) -> float:
    """Return the seconds to wait after a number of runs in a row that could not start."""
    return min(LONGEST_PAUSE, PAUSE * 2 ** min(failures - 1, 20))


def _number(record: RunRecord) -> int:
    """Return the number of a run of a batch, from its key."""
    number = record.dagster_run.tags.get(RUN_KEY_TAG, "").rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _has_told(record: RunRecord) -> bool:
    return record.dagster_run.tags.get(FAILED_TAG, "0") != "0"


def _could_not_start(record: RunRecord) -> bool:
    failed = record.dagster_run.status is DagsterRunStatus.FAILURE
    return failed and record.start_time is None


@dataclass
class HeldKeys:
    """Partitions by table that unfinished runs are going to make.

    Attributes
    ----------
    whole
        The tables of whose keys a run may make any.
    """

    partitions: dict[AssetKey, set[str]] = field(default_factory=dict[AssetKey, set[str]])
    whole: set[AssetKey] = field(default_factory=set[AssetKey])

    def of(self, key: AssetKey) -> set[str]:
        """Return the held partitions of a table, without those of `whole`."""
        return self.partitions.get(key, set())

    def add(self, other: HeldKeys) -> None:
        """Add the keys that another run holds."""
        for key, partitions in other.partitions.items():
            self.partitions.setdefault(key, set()).update(partitions)
        self.whole |= other.whole


OUTSIDE_TAG = "dj_dagster/outside"
"""The tag of runs that were never executed and stand for failures outside of runs."""

INTERVAL = timedelta(seconds=3)
"""The time between two queries for failed runs, at least."""

OVERLAP = timedelta(seconds=10)
"""The overlap of two queries for failed runs, because Dagster's clocks may differ a little."""


class RunBook:
    """The unfinished runs, each of which is read once, because the keys it holds do not change."""

    def __init__(self) -> None:
        self._runs: dict[str, HeldKeys] = {}
        self._announcing: set[str] = set()
        self._failed: dict[str, datetime] = {}
        self._read: datetime | None = None

    def read(self, instance: DagsterInstance, graph: TableGraph) -> list[HeldKeys]:
        """Read the unfinished runs, and return the keys that ended runs held.

        Runs that have both begun and failed since the last call are included.
        """
        unfinished = RunsFilter(statuses=list(NOT_FINISHED_STATUSES))
        now = set(instance.get_run_ids(unfinished))
        new = sorted(now - set(self._runs) | self._announcing)
        self._announcing.clear()
        if new:
            for run in instance.get_runs(RunsFilter(run_ids=new)):
                self._runs[run.run_id] = held_by(instance, graph, run)
                # It is still being created and may announce more partitions: read it once more.
                if run.status is DagsterRunStatus.NOT_STARTED:
                    self._announcing.add(run.run_id)
        unseen = [run for run in self._failures(instance) if run.run_id not in self._runs]
        ended = [self._runs.pop(run_id) for run_id in set(self._runs) - now]
        return ended + [held_by(instance, graph, run) for run in unseen]

    def _failures(self, instance: DagsterInstance) -> list[DagsterRun]:
        """Return the runs that have failed since the last call; none at the first call."""
        now, before = datetime.now(UTC), self._read
        if before is not None and now < before + INTERVAL:
            return []
        self._read = now
        if before is None:
            return []
        since = before - OVERLAP
        failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE], updated_after=since)
        known = {run_id: at for run_id, at in self._failed.items() if at > since - OVERLAP}
        new = [run for run in instance.get_runs(failed) if run.run_id not in known]
        self._failed = known | {run.run_id: now for run in new}
        return [run for run in new if OUTSIDE_TAG not in run.tags]

    def held(self) -> HeldKeys:
        """Return the keys that all unfinished runs hold."""
        held = HeldKeys()
        for run in self._runs.values():
            held.add(run)
        return held


def held_by(instance: DagsterInstance, graph: TableGraph, run: DagsterRun) -> HeldKeys:
    """Return the keys that a run is going to make; a whole table where they are not known (yet)."""
    held, choice = HeldKeys(), RunChoice(instance, run)
    for node in _nodes(run, graph):
        covered: Sequence[str] = ()
        named: Sequence[str] | None = None
        # Either the run has not announced its partitions yet, or its step will fail by this error.
        with suppress(DataJointError):
            covered = choice.covered(node)
            named = choice.configured(node)
        # Partitions that the config leaves out are announced too, and shown by the run's end.
        if found := decoded(node.grain, (*covered, *(named or ()))):
            held.partitions[node.key] = _partitions(node, found)
        if named is None:
            held.whole.add(node.key)
    return held


def _partitions(node: TableNode, keys: Sequence[Key]) -> set[str]:
    try:
        return set(node.partitions_of(keys))
    except DataJointError:
        # Without the database, only keys that the sensor itself has named are known for sure.
        return set() if node.grain is None else set(map(node.grain.encode, keys))


def _nodes(run: DagsterRun, graph: TableGraph) -> Iterable[TableNode]:
    selected = run.asset_selection or ()
    return [graph.by_key[key] for key in selected if key in graph.by_key]


PROCESS_TAG = "dj_dagster/process"
"""The tag with the id and the process of a run.

A run that is executed again begins with all tags of the run that it repeats, whose process may be
gone; the id tells the two apart.
"""

AT_WORK = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


def note_process(instance: DagsterInstance, run: DagsterRun) -> None:
    """Note the process of a run in its tags, so that the end of the process can be seen.

    A run that is executed again also loses the tag with the failed keys of the run before.
    """
    again = run.parent_run_id is not None
    # The step knows the tags as they were when its process began.
    now = (instance.get_run_by_id(run.run_id) if again else None) or run
    if _process(now) is not None:
        return
    mark = _mark(instance, run)
    if again or mark:
        told = {FAILED_TAG: "0"} if FAILED_TAG in now.tags else {}
        instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{run.run_id} {mark}", **told})


def _mark(instance: DagsterInstance, run: DagsterRun) -> str:
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    logged = (event.get_dagster_event().engine_event_data.metadata for event in events)
    told = {str(metadata["pid"].value) for metadata in logged if "pid" in metadata}
    # A step may have a process of its own; the run's process is the one in Dagster's events.
    own = (process for process in (os.getppid(), os.getpid()) if str(process) in told)
    return next(map(process_mark, own), "")


def _process(run: DagsterRun) -> str | None:
    """Return the mark of a run's process, None if the run's tags do not have one of this run."""
    run_id, _, mark = run.tags.get(PROCESS_TAG, "").partition(" ")
    return mark if run_id == run.run_id else None


def end_lost_runs(instance: DagsterInstance) -> None:
    """Report the runs as failed that Dagster takes to be at work and whose process is gone."""
    for run in instance.get_runs(RunsFilter(statuses=list(AT_WORK))):
        if not is_gone(_process(run) or ""):
            continue
        # It may have ended well since it was read.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in AT_WORK:
            instance.report_run_failed(
                now, "The process of this run is gone: it ended, or was killed, without a word."
            )
