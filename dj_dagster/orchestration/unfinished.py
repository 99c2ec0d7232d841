"""Which keys runs that have not ended hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from dj_dagster.errors import DataJointError, InvalidValueError
from dj_dagster.orchestration.chosen import RunChoice
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode


@dataclass
class HeldKeys:
    """Partitions by table that unfinished runs are going to make.

    Attributes
    ----------
    whole
        Tables of which a run may make any key.
    """

    partitions: dict[AssetKey, set[str]] = field(default_factory=dict[AssetKey, set[str]])
    whole: set[AssetKey] = field(default_factory=set[AssetKey])

    def of(self, key: AssetKey) -> set[str]:
        """Return the held partitions of a table, without those of `whole`."""
        return self.partitions.get(key, set())

    def add(self, other: HeldKeys) -> None:
        """Hold what another run holds too."""
        for key, partitions in other.partitions.items():
            self.partitions.setdefault(key, set()).update(partitions)
        self.whole |= other.whole


OUTSIDE_TAG = "dj_dagster/outside"
"""Of runs that never ran: they stand for what has failed outside of runs."""

INTERVAL = timedelta(seconds=3)
"""How often failed runs are looked for, which takes a query."""

OVERLAP = timedelta(seconds=10)
"""How far back failed runs are looked for once more: Dagster's clocks may differ a little."""


class RunBook:
    """The unfinished runs that have been read: what a run holds does not change."""

    def __init__(self) -> None:
        self._runs: dict[str, HeldKeys] = {}
        self._announcing: set[str] = set()
        self._failed: dict[str, datetime] = {}
        self._read: datetime | None = None

    def read(self, instance: DagsterInstance, graph: TableGraph) -> list[HeldKeys]:
        """Read the queued, starting and running runs; return what those held that have ended.

        Those too that have begun and failed since the last time.
        """
        unfinished = RunsFilter(statuses=list(NOT_FINISHED_STATUSES))
        now = set(instance.get_run_ids(unfinished))
        new = sorted(now - set(self._runs) | self._announcing)
        self._announcing.clear()
        if new:
            for run in instance.get_runs(RunsFilter(run_ids=new)):
                self._runs[run.run_id] = held_by(instance, graph, run)
                # Its partitions are being announced while it is created.
                if run.status is DagsterRunStatus.NOT_STARTED:
                    self._announcing.add(run.run_id)
        unseen = [run for run in self._failures(instance) if run.run_id not in self._runs]
        ended = [self._runs.pop(run_id) for run_id in set(self._runs) - now]
        return ended + [held_by(instance, graph, run) for run in unseen]

    def _failures(self, instance: DagsterInstance) -> list[DagsterRun]:
        """Return the runs that have failed since this was asked before; at first none."""
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
        """Return what all of them hold."""
        held = HeldKeys()
        for run in self._runs.values():
            held.add(run)
        return held


def held_by(instance: DagsterInstance, graph: TableGraph, run: DagsterRun) -> HeldKeys:
    """Return what a run is going to make; a whole table where that is not known (yet)."""
    held, choice = HeldKeys(), RunChoice(instance, run)
    for node in _nodes(run, graph):
        covered: Sequence[str] = ()
        named: Sequence[str] | None = None
        # The run may be about to announce them; else its step is going to fail by this.
        with suppress(DataJointError):
            covered = choice.covered(node)
            named = choice.configured(node)
        # Those that it does not make are announced all the same, and its end is theirs too.
        if found := {p for p in (*covered, *(named or ())) if _is_key(node, p)}:
            held.partitions[node.key] = found
        if named is None:
            held.whole.add(node.key)
    return held


def _is_key(node: TableNode, partition: str) -> bool:
    """Whether a partition, which a person may have written, stands for a key of the table."""
    try:
        return node.grain is not None and bool(node.grain.decode(partition))
    except InvalidValueError:
        return False


def _nodes(run: DagsterRun, graph: TableGraph) -> Iterable[TableNode]:
    selected = run.asset_selection or ()
    return [graph.by_key[key] for key in selected if key in graph.by_key]
