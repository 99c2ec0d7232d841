"""The sensor's state between ticks: detected changes that still need processing.

`transitions` lists the events, and the work that each makes. The state has one owner for each kind
of work, and `SensorState.note` is the only way from an event to the owners.

The state is only a hint. The truth is in the tables, their job queues and Dagster's runs. If the
state is lost with the code server's process, one look at everything restores it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from dagster import DagsterInstance

from dj_dagster.model.names import TableName
from dj_dagster.orchestration.checks import CheckWatch
from dj_dagster.orchestration.runs.run_records import HeldKeys, RunBook, end_lost_runs
from dj_dagster.orchestration.runs.stale_marks import CodeWatch
from dj_dagster.orchestration.sensor.detection import Detection, renamed_from
from dj_dagster.orchestration.sensor.requests import Batch, Retries, RunRequester
from dj_dagster.orchestration.sensor.sensor_settings import Pause
from dj_dagster.orchestration.sensor.transitions import EFFECTS, OF_MADE, OF_PARTITIONS, Event, Work
from dj_dagster.orchestration.sensor.upkeep import (
    FailureMarks,
    NewMarks,
    Partitions,
    StaleMarks,
    Withdrawals,
)
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import EVERYTHING, Key, Region, decoded
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode


@dataclass
class Sweep:
    """The look at everything that is taken from time to time.

    Attributes
    ----------
    began
        The time when the last look began; None before the first.
    seconds
        The seconds that the present look has taken so far; None between looks.
    """

    began: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        self._pause = Pause()

    def is_due(self, interval: float) -> bool:
        """Whether a look is to begin, at an interval of a number of seconds."""
        if self.began is None:
            return True
        late = time.monotonic() - self.began > interval
        return late and self.seconds is None and self._pause.over

    def begin(self) -> None:
        """Note that a look begins."""
        self.began, self.seconds = time.monotonic(), 0.0

    def took(self, seconds: float, *, ended: bool) -> None:
        """Note the seconds that a tick has spent on the present look, if any."""
        if self.seconds is None:
            return
        self.seconds += seconds
        if ended:
            self._pause.took(self.seconds)
            self.seconds = None


class SensorState:
    """The work that events have made and that is not done yet, each kind with its owner.

    Attributes
    ----------
    detection
        The tables and job queues that may have changed.
    runs
        The runs that have not ended.
    requester, retries, partitions, new_marks, stale_marks, failures, withdrawals, checks, code
        The owners of work.
    turn
        The number of pieces of long looks so far, by which each look gets its share over all ticks.
    """

    def __init__(self, graph: TableGraph, code: CodeWatch, checks: CheckWatch) -> None:
        self.graph = graph
        self.code = code
        self.checks = checks
        self.detection = Detection(graph, self.note_change, self.note)
        self.runs = RunBook()
        self.sweep = Sweep()
        rows = self.detection.rows
        self.partitions = Partitions(graph, rows, self._parents_restored)
        self.requester = RunRequester(graph, self.partitions, rows, self.runs, self.note_batch)
        self.retries = Retries()
        self.new_marks = NewMarks(graph, self.partitions, rows)
        self.stale_marks = StaleMarks(graph, self.new_marks, self._aged)
        self.failures = FailureMarks(graph, self.new_marks, self.detection.errors)
        self.withdrawals = Withdrawals(graph, self._withdrawn)
        self.turn = 0

    @property
    def goes_on(self) -> bool:
        """Whether long work is left."""
        return (
            self.detection.goes_on
            or self.partitions.goes_on
            or self.new_marks.goes_on
            or self.stale_marks.goes_on
            or self.failures.goes_on
            or self.withdrawals.goes_on
        )

    def note(self, event: Event, node: TableNode, region: Region = EVERYTHING) -> None:
        """Note the work that an event makes for the table of the event."""
        for work in EFFECTS[event].itself:
            self._note_work(work, node, region)

    def note_change(self, event: Event, name: TableName, region: Region) -> None:
        """Note the work that a change of rows makes for all tables that it concerns."""
        effects, node = EFFECTS[event], self.graph.by_name.get(name)
        if node is not None:
            self.note(event, node, region)
        for dependent in self.detection.dependents(name):
            names = dependent.names
            found = EVERYTHING if names is None else region.renamed(names)
            for work in effects.dependents:
                self._note_work(work, dependent.node, found)
        for reader in self.detection.readers(name):
            names = renamed_from(reader, name)
            if names is not None and event is Event.VALUES_CHANGED:
                # The keys of this reader come from keys alone.
                continue
            found = EVERYTHING if names is None else region.renamed(names)
            for work in effects.readers:
                self._note_work(work, reader, found)

    def _note_work(self, work: Work, node: TableNode, region: Region) -> None:
        """Give work to its owner, if the table can have such work."""
        if (work in OF_PARTITIONS and node.grain is None) or (
            work in OF_MADE and not node.populated
        ):
            return
        match work:
            case Work.REQUEST:
                self.requester.note(node, region)
            case Work.RETRY:
                self.retries.note(node)
            case Work.REGISTER:
                self.partitions.note_new(node, region)
            case Work.COMPARE:
                self.partitions.note_gone(node)
            case Work.MARK:
                self.new_marks.note(node, region)
            case Work.WITHDRAW:
                self.withdrawals.note(node)
            case Work.AGE:
                self.stale_marks.note(node, region)
            case Work.RENEW:
                self.stale_marks.note_written(node)
            case Work.PROVE:
                self.failures.note(node, region)
            case Work.CHECK:
                self.checks.note(node.key)
                self.checks.note(node.master)
            case Work.COUNT:
                self.code.look_again(node)
            case Work.RECOUNT:
                self.code.note_marks(node)
            case _:
                assert_never(work)

    def begin_sweep(self) -> None:
        """Have everything looked at anew."""
        self.detection.sweep()
        # The failures of tables with a queue are in doubt once the queue has been looked at.
        for node in self.graph.populated:
            if not node.reservable:
                self.note(Event.FAILURES_IN_DOUBT, node)
        self.code.recount()
        self.sweep.begin()

    def see_runs(self, instance: DagsterInstance) -> HeldKeys:
        """Have the keys of ended runs looked at again; return the keys that other runs hold."""
        end_lost_runs(instance)
        # Requested batches come before the runs, so that a run that begins in between is seen.
        for batch in self.requester.ended(instance):
            self.note_batch(batch)
        for ended in self.runs.read(instance, self.graph):
            for key, partitions in ended.partitions.items():
                node = self.graph.by_key[key]
                if node.populated and node.grain is not None:
                    self.note_keys(Event.RUN_ENDED, node, map(node.grain.decode, partitions))
            for key in ended.whole:
                if self.graph.by_key[key].populated:
                    self._note_table_run(self.graph.by_key[key])
        return self.runs.held()

    def see_records(self, instance: DagsterInstance) -> None:
        """See what people have removed in Dagster, and the new marks."""
        graph = self.graph
        keys = [node.key for node in graph.nodes]
        seen = self.partitions.records.look(instance, graph.grains, keys)
        for grain in seen.lacking:
            self.note(Event.PARTITIONS_LOST, graph.of_grain(grain)[0])
        for key in seen.wiped:
            self.note(Event.EVENTS_LOST, graph.by_key[key])
        for key in seen.marked:
            self.note(Event.MARKS_WRITTEN, graph.by_key[key])

    def note_batch(self, batch: Batch) -> None:
        """Have the keys of a batch looked at again."""
        for node in batch.nodes:
            if node.grain is None:
                self._note_table_run(node)
            else:
                self.note_keys(Event.RUN_ENDED, node, map(node.grain.decode, batch.partitions))

    def note_keys(self, event: Event, node: TableNode, keys: Iterable[Key]) -> None:
        """Note an event for keys in a table and its parts."""
        region = Region(keys=tuple(keys))
        self.note(event, node, region)
        for part in self.graph.parts(node):
            self.note(Event.MASTER_RUN_ENDED, part, region)

    def _note_table_run(self, node: TableNode) -> None:
        self.note(Event.TABLE_RUN_ENDED, node)
        if node.grain is not None:
            self._note_partitions(Event.JOBS_FAILED, node, list(self.detection.errors(node)))

    def _parents_restored(self, grain: Grain) -> None:
        for node in self.graph.of_grain(grain):
            if partitions := self.requester.orphans.pop(node.key, None):
                self._note_partitions(Event.PARENTS_RESTORED, node, list(partitions))

    def _aged(self, node: TableNode) -> None:
        self.note(Event.MARKS_AGED, node)

    def _withdrawn(self, node: TableNode, partitions: Sequence[str]) -> None:
        self._note_partitions(Event.MARKS_WITHDRAWN, node, partitions)

    def _note_partitions(self, event: Event, node: TableNode, partitions: Sequence[str]) -> None:
        if node.grain is not None:
            self.note(event, node, Region(keys=tuple(decoded(node.grain, partitions))))
