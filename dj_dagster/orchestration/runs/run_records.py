"""Runs in Dagster: their keys and attempts, and those whose process is gone.

The tags of a run hold only the two ends of a range of partitions. The partitions between them
change: a key that is deleted and entered again comes last. The events by which a run announces its
partitions are written when it is created, and so tell which partitions were chosen.

A code server reports the end of the run processes that it has started. After a restart it does not
know the earlier processes, and Dagster would take their runs to be at work for ever, and so hold
their keys.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from itertools import takewhile
from typing import Any

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunRecord,
    RunsFilter,
)

from dj_dagster.errors import ConfigurationError, DataJointError, PopulateError
from dj_dagster.model.heading import Key
from dj_dagster.orchestration._dagster import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    NOT_FINISHED_STATUSES,
    PARTITION_NAME_TAG,
    RUN_KEY_TAG,
    DefaultPartitionsSubset,
)
from dj_dagster.orchestration.runs.node_code import was_refused
from dj_dagster.orchestration.tables.partitions import decoded
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode, op_name
from dj_dagster.workflow.liveness import is_gone, process_mark

ALL = "all"
"""The only word for all keys, or all tables; an empty or missing value never means all."""

KEYS_TAG = "dj_dagster/keys"
TABLES_TAG = "dj_dagster/tables"

ChosenKeys = str | Sequence[str] | None
"""The keys in a run's config: `ALL`, partition keys, or None."""


@dataclass
class RunChoice:
    """The partitions that a run is for, as the step and the sensor both read them."""

    instance: DagsterInstance
    run: DagsterRun
    _read: dict[str, Mapping[AssetKey, list[str]]] = field(
        default_factory=dict[str, Mapping[AssetKey, list[str]]]
    )

    def partitions(self, node: TableNode, keys: ChosenKeys) -> Sequence[str] | None:
        """Return the partitions of a table that the run makes, None for all.

        A table without partitions is chosen as a whole.

        Parameters
        ----------
        keys
            The keys in the config of the table's op, which override the run's partitions.

        Raises
        ------
        ConfigurationError
            When neither `keys` nor the run names partitions, or `keys` is empty.
        PopulateError
            When the partitions of a range can no longer be known.
        """
        if keys == ALL:
            return None
        if keys is not None:
            return _named(node, keys)
        if node.grain is None:
            return None
        if not self._tagged:
            raise ConfigurationError(
                f"The run names no partition of {node.title}, and no keys: choose partitions, or "
                f"write keys: {ALL} in the config of {op_name(node.key)}."
            )
        return self.covered(node)

    def configured(self, node: TableNode) -> Sequence[str] | None:
        """Return `partitions` for the keys in the run's config, before its step has started."""
        config: Any = self.run.run_config
        for name in ("ops", op_name(node.master or node.key), "config"):
            config = config.get(name, {}) if isinstance(config, Mapping) else {}
        return self.partitions(node, config.get("keys"))

    def covered(self, node: TableNode) -> Sequence[str]:
        """Return the partitions of a table that the run's tags stand for.

        Raises
        ------
        PopulateError
            When the partitions of a range can no longer be known.
        """
        if node.grain is None or not self._tagged:
            return []
        start, end = self._tagged
        if start == end:
            return [start]
        for run in self._first, self.run:
            if (found := self._announced_by(run).get(node.key)) is not None:
                return self._of_backfill(node, found)
        raise PopulateError(
            f"{node.title} is not made: the run is for the partitions {start!r} to {end!r}, and "
            "the events that say which these were are gone. Launch them anew."
        )

    def tell(self, graph: TableGraph, node: TableNode, partitions: Sequence[str] | None) -> None:
        """Tag the run with its tables and keys, as the sensor's runs are tagged from the start."""
        # A run that is executed again has the tags of the run before.
        if TABLES_TAG in self.run.tags and self.run.parent_run_id is None:
            return
        selected = self.run.asset_selection or ()
        nodes = [each for each in graph.populated if each.key in selected]
        whole = None if node.grain else 1
        keys = whole if partitions is None else len(partitions)
        self.instance.add_run_tags(self.run.run_id, run_tags(nodes, keys))

    @cached_property
    def _tagged(self) -> tuple[str, str] | None:
        return _ends(self.run)

    @cached_property
    def _first(self) -> DagsterRun:
        """The first run that this one repeats, for which the range was chosen, or this one."""
        root = self.run.root_run_id
        found = self.instance.get_run_by_id(root) if root else None
        return found if found is not None and _ends(found) == self._tagged else self.run

    def _of_backfill(self, node: TableNode, partitions: list[str]) -> list[str]:
        """Leave out the partitions that are not in the target of the run's backfill.

        A backfill chooses the ends of its ranges before it creates its runs one after the other, so
        that other partitions may lie between the ends by then.
        """
        name = self.run.tags.get(BACKFILL_ID_TAG)
        backfill = self.instance.get_backfill(name) if name else None
        data = backfill.asset_backfill_data if backfill is not None else None
        subsets = data.target_subset.partitions_subsets_by_asset_key if data is not None else {}
        target = subsets.get(node.key)
        if not isinstance(target, DefaultPartitionsSubset):
            return partitions
        return [partition for partition in partitions if partition in target.subset]

    def _announced_by(self, run: DagsterRun) -> Mapping[AssetKey, list[str]]:
        if run.run_id not in self._read:
            self._read[run.run_id] = announced(self.instance, run.run_id)
        return self._read[run.run_id]


def run_tags(nodes: Iterable[TableNode], keys: int | None) -> dict[str, str]:
    """Return the tags that show the tables and the number of keys of a run in lists of runs.

    Parameters
    ----------
    keys
        The number of keys, None for all.
    """
    return {
        KEYS_TAG: ALL if keys is None else str(keys),
        TABLES_TAG: ", ".join(node.title for node in nodes),
    }


def announced(instance: DagsterInstance, run_id: str) -> dict[AssetKey, list[str]]:
    """Return the partitions that a run has announced, by table."""
    found: dict[AssetKey, dict[str, None]] = {}
    planned = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    for entry in instance.all_logs(run_id, of_type=planned):
        data = entry.get_dagster_event().asset_materialization_planned_data
        partitions = found.setdefault(data.asset_key, {})
        if data.partition is not None:
            partitions[data.partition] = None
        elif data.partitions_subset is not None:
            partitions.update(dict.fromkeys(data.partitions_subset.get_partition_keys()))
        else:
            del found[data.asset_key]
    return {key: list(partitions) for key, partitions in found.items()}


def _ends(run: DagsterRun) -> tuple[str, str] | None:
    """Return the first and the last partition of a run, None for a run without partitions."""
    if PARTITION_NAME_TAG in run.tags:
        return run.tags[PARTITION_NAME_TAG], run.tags[PARTITION_NAME_TAG]
    start = run.tags.get(ASSET_PARTITION_RANGE_START_TAG)
    end = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    return (start, end) if start and end else None


def _named(node: TableNode, keys: str | Sequence[str]) -> Sequence[str]:
    if isinstance(keys, str):
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has keys: {keys}. Write a list of partition keys "
            f"of {node.title}, or {ALL}."
        )
    if not keys:
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has an empty list of keys, which is none: leave it "
            f"out to make the run's own partitions of {node.title}, or write keys: {ALL}."
        )
    if node.grain is None:
        raise ConfigurationError(
            f"The config of {op_name(node.key)} has keys, and {node.title} has no partitions: "
            "leave them out."
        )
    return keys


BATCH_TAG = "dj_dagster/batch"
FAILED_TAG = "dj_dagster/failed"
"""The tag with the number of keys that the run has reported as failed."""

UNQUEUED_TAG = "dj_dagster/failed_without_queue"
"""The tag with the number of those that stay pending, because their table has no job queue."""

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
        silent = (record.dagster_run for record in self._vain if not _failed(record, FAILED_TAG))
        return any(run.status is DagsterRunStatus.FAILURE for run in silent)

    def refusal(self, limit: int) -> Refusal | None:
        """Return the reason against a run of the batch now, None to run it.

        Parameters
        ----------
        limit
            The number of runs in a row that may end without making keys or having a job queue keep
            their failures. Runs that could not start are not counted: they are repeated without
            end, but ever less often.
        """
        if any(not record.dagster_run.is_finished for record in self.records):
            return Refusal.LATER
        if len(self._vain) >= limit:
            return Refusal.EXHAUSTED
        return None if time.time() >= self._due else Refusal.LATER

    @cached_property
    def _vain(self) -> list[RunRecord]:
        """The started runs since the last progress that left the keys pending."""
        # A run whose failures are in a job queue has done its work; the next attempt at those keys,
        # which somebody has made pending again, does not count.
        vain = (record for record in self.records if not _has_settled(record))
        began = (record for record in vain if not _could_not_start(record))
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


def _has_settled(record: RunRecord) -> bool:
    """Whether a run has reported failed keys, and job queues keep all of the failures."""
    return _failed(record, FAILED_TAG) and not _failed(record, UNQUEUED_TAG)


def _failed(record: RunRecord, tag: str) -> bool:
    return record.dagster_run.tags.get(tag, "0") != "0"


def _could_not_start(record: RunRecord) -> bool:
    failed = record.dagster_run.status is DagsterRunStatus.FAILURE
    return failed and (record.start_time is None or was_refused(record.dagster_run))


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

# Runs that are not started yet are launched at once, or were left behind by a killed daemon.
_NOT_BEGUN = [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING]

INTERVAL = 3.0
"""Seconds between two queries for failed runs, at least."""

AT_ONCE = 20
"""Failed runs that are read at once, at most."""


class RunBook:
    """The unfinished runs, each of which is read once, because the keys it holds do not change."""

    def __init__(self) -> None:
        self._runs: dict[str, HeldKeys] = {}
        self._announcing: set[str] = set()
        self._newest: int | None = None
        self._read = 0.0

    def read(self, instance: DagsterInstance, graph: TableGraph) -> list[HeldKeys]:
        """Read the unfinished runs, and return the keys that ended runs held.

        Runs that have both begun and failed since the last call are included.
        """
        # Read first: a run that is created in between is new to the next call.
        newest = self._newest_number(instance)
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
        unseen = [run for run in self._failures(instance, newest) if run.run_id not in self._runs]
        ended = [self._runs.pop(run_id) for run_id in set(self._runs) - now]
        return ended + [held_by(instance, graph, run) for run in unseen]

    def _newest_number(self, instance: DagsterInstance) -> int | None:
        """Return the number of the newest run, None if it was asked for just now."""
        now = time.monotonic()
        if self._newest is not None and now < self._read + INTERVAL:
            return None
        self._read = now
        return next((each.storage_id for each in instance.get_run_records(limit=1)), 0)

    def _failures(self, instance: DagsterInstance, newest: int | None) -> list[DagsterRun]:
        """Return the failed runs that were created since the last call up to a number.

        The times of a run are those of the machine that executes it, whose clock may differ from
        this one's; the numbers of runs are given by Dagster's storage.
        """
        before = self._newest
        if newest is None or newest == before:
            return []
        self._newest = newest
        if before is None:
            return []
        failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE])
        found, cursor = list[RunRecord](), None
        while records := instance.get_run_records(failed, limit=AT_ONCE, cursor=cursor):
            found += [each for each in records if before < each.storage_id <= newest]
            if records[-1].storage_id <= before:
                break
            cursor = records[-1].dagster_run.run_id
        runs = [each.dagster_run for each in found]
        return [run for run in runs if OUTSIDE_TAG not in run.tags]

    def not_begun(self, instance: DagsterInstance) -> Counter[AssetKey]:
        """Return the numbers of unfinished runs that have not begun, by table."""
        waiting = instance.get_run_ids(RunsFilter(statuses=_NOT_BEGUN))
        found = Counter[AssetKey]()
        for held in filter(None, map(self._runs.get, waiting)):
            found.update(held.whole | held.partitions.keys())
        return found

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


VERSIONS_TAG = "dj_dagster/versions"
"""The tag with the versions of Python and of packages that a run works with.

Of a run that went on in another process with other versions it has both.
"""

PROCESS_TAG = "dj_dagster/process"
"""The tag with the id and the process of a run.

A run that is executed again begins with all tags of the run that it repeats, whose process may be
gone; the id tells the two apart.
"""

AT_WORK = (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)


def note_process(instance: DagsterInstance, run: DagsterRun, versions: str) -> None:
    """Note the process of a run in its tags, so that its end can be seen, and its versions.

    A run that is executed again also loses the tags with the failed keys of the run before.
    """
    again = run.parent_run_id is not None
    # The step knows the tags as they were when its process began.
    now = (instance.get_run_by_id(run.run_id) if again else None) or run
    if _process(now) is not None:
        # It goes on after another process of it was lost.
        known = now.tags.get(VERSIONS_TAG)
        if known is None or versions not in known.split("; "):
            both = f"{known}; {versions}" if known else versions
            instance.add_run_tags(run.run_id, {VERSIONS_TAG: both})
        return
    mark = _mark(instance, run)
    told = {VERSIONS_TAG: versions}
    if again or mark:
        told[PROCESS_TAG] = f"{run.run_id} {mark}"
        told |= {tag: "0" for tag in (FAILED_TAG, UNQUEUED_TAG) if tag in now.tags}
    instance.add_run_tags(run.run_id, told)


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
    """Report the runs as failed that Dagster takes to be at work and whose process is gone.

    Where Dagster resumes runs in new processes, its launcher decides which are lost.
    """
    if instance.run_monitoring_enabled and instance.run_monitoring_max_resume_run_attempts:
        return
    for run in instance.get_runs(RunsFilter(statuses=list(AT_WORK))):
        if not is_gone(_process(run) or ""):
            continue
        # It may have ended well since it was read.
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in AT_WORK:
            instance.report_run_failed(
                now, "The process of this run is gone: it ended, or was killed, without a word."
            )
