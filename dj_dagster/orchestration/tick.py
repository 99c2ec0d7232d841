"""One evaluation of the sensor: what has changed is looked at, marked, and asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from dagster import (
    AssetKey,
    DagsterInstance,
    RunRequest,
    RunsFilter,
)
from dagster._core.storage.tags import RUN_KEY_TAG

from dj_dagster.model.names import TableName
from dj_dagster.orchestration.asking import Asking
from dj_dagster.orchestration.guard import Guard
from dj_dagster.orchestration.pauses import Budget
from dj_dagster.orchestration.registered import Changes
from dj_dagster.orchestration.requests import Batch
from dj_dagster.orchestration.retries import NO_RETRIES
from dj_dagster.orchestration.run_processes import end_lost_runs
from dj_dagster.orchestration.sensor_settings import SensorSettings
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.orchestration.unfinished import HeldKeys
from dj_dagster.orchestration.upkeep import Upkeep
from dj_dagster.orchestration.watching import Watch

HURRY = 2.0
"""Seconds that runs which are asked for wait at most, while the tick goes on with other things."""


@dataclass(frozen=True)
class TickResult:
    """What a tick has done.

    Attributes
    ----------
    exhausted
        Batches that are not asked for any more.
    errors
        What went wrong, by what was tried.
    goes_on
        Whether something was left to the next ticks.
    """

    requests: list[RunRequest]
    exhausted: list[Batch]
    errors: dict[str, Exception]
    changes: Changes
    goes_on: bool


@dataclass
class Tick:
    """One evaluation of the sensor.

    What has changed since the last one comes first, so that the keys of new rows are asked for
    whatever else is to be done. What takes long gets the time that is left.
    """

    instance: DagsterInstance
    watch: Watch
    settings: SensorSettings
    managed: frozenset[AssetKey]
    _guard: Guard = field(default_factory=Guard)

    def evaluate(self) -> TickResult:
        """Register partitions, mark rows, and return requests for what is pending."""
        began, watch, guard = time.monotonic(), self.watch, self._guard
        budget = Budget(self.settings.tick_seconds)
        # Read before the tables: a run that ends in between still counts as unfinished then.
        held = self._see_runs()
        for connection in watch.connections:
            guard.attempt(connection.url, connection, watch.see_changes, connection)
        watch.see_losses(self.instance)
        if self._sweep_is_due():
            watch.sweep()
        self._look(budget)
        self._look_at_jobs()
        asking = Asking(self.instance, watch, self.settings, held, guard, budget)
        upkeep = Upkeep(self.instance, watch, self.settings, self.managed, held, guard, budget)
        upkeep.register_new()
        asking.ask()
        upkeep.find_new()
        if asking.requests:
            budget.shorten(HURRY)
        upkeep.go_on()
        if upkeep.changes.added or asking.requests:
            # Partitions of runs that are asked for were registered with them.
            watch.losses.hurry()
            watch.see_losses(self.instance)
        self._report_code()
        self._report_checks(held, budget)
        self._end_sweep(time.monotonic() - began)
        goes_on = watch.goes_on or asking.goes_on
        return TickResult(asking.requests, asking.exhausted, guard.errors, upkeep.changes, goes_on)

    def _see_runs(self) -> HeldKeys:
        watch = self.watch
        end_lost_runs(self.instance)
        # What was asked for before the runs: of one that begins in between the run is seen.
        for run_key, batch in list(watch.asked.items()):
            runs = self.instance.get_runs(RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
            if not runs or runs[0].is_finished:
                watch.retry_batch(batch)
            del watch.asked[run_key]
        for ended in watch.runs.read(self.instance, watch.graph):
            self._look_again(ended)
        return watch.runs.held()

    def _look_again(self, ended: HeldKeys) -> None:
        for key, partitions in ended.partitions.items():
            node = self.watch.graph.by_key[key]
            if node.populated and node.grain is not None:
                self.watch.retry(node, map(node.grain.decode, partitions))
        for key in ended.whole:
            node = self.watch.graph.by_key[key]
            if node.populated:
                self.watch.retry_all(node)

    def _sweep_is_due(self) -> bool:
        watch = self.watch
        if watch.swept is None:
            return True
        late = time.monotonic() - watch.swept > self.settings.sweep
        return late and watch.sweeping is None and watch.pauses["sweep"].over

    def _end_sweep(self, seconds: float) -> None:
        watch = self.watch
        if watch.sweeping is None:
            return
        watch.sweeping += seconds
        if not watch.goes_on:
            watch.pauses["sweep"].took(watch.sweeping)
            watch.sweeping = None

    def _look(self, budget: Budget) -> None:
        """Look at what may have changed: new rows first, what takes long as there is time."""
        watch, new = self.watch, list[bool]()
        for name in watch.in_order:
            self._guard.attempt(str(name), watch.connection_of(name), self._look_at, name, new)
        for name in watch.comparable(busy=any(new)):
            self._guard.attempt(str(name), watch.connection_of(name), watch.compare, name)
            if budget.spent:
                return

    def _look_at(self, name: TableName, new: list[bool]) -> None:
        new.append(self.watch.look(name))

    def _look_at_jobs(self) -> None:
        watch = self.watch
        for connection in watch.connections:
            self._guard.attempt(connection.url, connection, watch.free_dead, connection)
        due = {key for key, waiting in watch.errors.items() if waiting.due}
        for key in watch.unread_errors | due:
            node = watch.graph.by_key[key]
            self._guard.attempt(node.title, node.table.connection, self._retry_errors, node)

    def _retry_errors(self, node: TableNode) -> None:
        watch, policy = self.watch, self.settings.of(node).retries or NO_RETRIES
        if node.key in watch.unread_errors:
            watch.errors[node.key].read(self.instance, node, policy)
            watch.unread_errors.discard(node.key)
        free = watch.errors[node.key].free(node)
        if free:
            watch.retry(node, free)

    def _report_checks(self, held: HeldKeys, budget: Budget) -> None:
        """Report the checks of tables in which no run is at work, as long as there is time."""
        watch = self.watch
        asked = {node.key for batch in watch.asked.values() for node in batch.nodes}
        for key in watch.checks.ready(asked | held.whole | held.partitions.keys()):
            if budget.spent:
                return
            node = watch.graph.by_key[key]
            self._guard.attempt(
                f"checks of {node.title}",
                node.table.connection,
                watch.checks.report,
                self.instance,
                key,
            )

    def _report_code(self) -> None:
        try:
            self.watch.code.report(self.instance)
        except Exception as error:
            self._guard.errors["check current"] = error
