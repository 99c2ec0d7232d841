"""One evaluation of the sensor: what has changed is looked at, marked, and asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from dagster import (
    AssetKey,
    DagsterInstance,
    RunRequest,
    RunsFilter,
)

from dj_dagster.model.names import TableName
from dj_dagster.orchestration._dagster import RUN_KEY_TAG
from dj_dagster.orchestration.runs.run_records import HeldKeys, Refusal, end_lost_runs
from dj_dagster.orchestration.sensor.limits import Budget, Guard
from dj_dagster.orchestration.sensor.requests import (
    Batch,
    batches,
    pending_partitions,
    request,
    single_batch,
)
from dj_dagster.orchestration.sensor.sensor_settings import NO_RETRIES, SensorSettings
from dj_dagster.orchestration.sensor.state import Watch
from dj_dagster.orchestration.sensor.upkeep import Upkeep
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import Changes, register
from dj_dagster.orchestration.tables.table_node import TableNode

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
        if any(watch.possible.values()):
            # What is registered may take the number of a partition that a person has removed.
            watch.losses.hurry()
            watch.see_losses(self.instance)
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


@dataclass
class Asking:
    """Looks where keys are pending and asks for their runs.

    Attributes
    ----------
    requests
        The runs.
    exhausted
        Batches that were run so often that they are not any more.
    postponed
        Batches that are asked for later.
    goes_on
        Whether a whole table waits to be looked at.
    """

    instance: DagsterInstance
    watch: Watch
    settings: SensorSettings
    held: HeldKeys
    guard: Guard
    budget: Budget
    requests: list[RunRequest] = field(default_factory=list[RunRequest])
    exhausted: list[Batch] = field(default_factory=list[Batch])
    postponed: list[Batch] = field(default_factory=list[Batch])
    goes_on: bool = False
    _slow: bool = False

    def ask(self) -> None:
        """Ask for what is pending."""
        graph, pending = self.watch.graph, self.watch.pending
        waiting = {
            key
            for key, regions in pending.items()
            if regions and self.settings.of(graph.by_key[key]).automatic
        }
        for grain in graph.grains:
            nodes = [node for node in graph.of_grain(grain) if node.key in waiting]
            if nodes:
                connection = nodes[0].table.connection
                self.guard.attempt(grain.name, connection, self._ask_in_grain, grain, nodes)
        for node in graph.populated:
            if node.grain is None and node.key in waiting:
                self.guard.attempt(node.title, node.table.connection, self._ask_single, node)
        for batch in self.postponed:
            self.watch.retry_batch(batch)

    def _ask_in_grain(self, grain: Grain, nodes: list[TableNode]) -> None:
        size, limit = self._batch_size(grain), self.settings.max_batches
        found: dict[AssetKey, list[str]] = {}
        complete: set[AssetKey] = set()
        able = self._able()
        for node in nodes:
            if node.key not in able:
                continue
            self.guard.attempt(
                node.title, node.table.connection, self._find, node, size * limit, found, complete
            )
        asked, all_in = batches(
            self.watch.graph, found, self.held, size=size, limit=limit, of=self._able()
        )
        self._add(batch for batch in asked if batch.nodes)
        if all_in:
            for key in complete:
                del self.watch.pending[key]

    def _find(
        self,
        node: TableNode,
        limit: int,
        found: dict[AssetKey, list[str]],
        complete: set[AssetKey],
    ) -> None:
        """Find the partitions of one table that are pending; note whether these are all."""
        regions, pause = self.watch.pending[node.key], self.watch.pauses[node.key]
        if regions.whole and not (pause.over and self._has_time()):
            self.goes_on = True
            return
        began = time.monotonic()
        found[node.key], ended, orphans = pending_partitions(
            self.watch.graph, node, regions, self.held, limit
        )
        self.watch.orphans[node.key] |= orphans
        if regions.whole:
            pause.after(began, self.watch.rows(node))
        if ended:
            complete.add(node.key)

    def _has_time(self) -> bool:
        """Whether a whole table may be looked at; one in each tick may."""
        first, self._slow = not self._slow, True
        return first or not self.budget.spent

    def _able(self) -> set[AssetKey]:
        """Return the tables that a run may have: not those that could not be looked at now."""
        populated, failed = self.watch.graph.populated, self.guard.errors
        return {
            node.key
            for node in populated
            if self.settings.of(node).automatic
            and not failed.keys() & {node.title, str(node.name)}
            and self.guard.attempt(node.title, node.table.connection, _try, node)
        }

    def _batch_size(self, grain: Grain) -> int:
        nodes = [node for node in self.watch.graph.of_grain(grain) if node.populated]
        return min(self.settings.of(node).batch_size for node in nodes)

    def _ask_single(self, node: TableNode) -> None:
        if node.key in self.held.whole:
            return
        self._add(single_batch(node, self.held))
        del self.watch.pending[node.key]

    def _add(self, found: Iterable[Batch]) -> None:
        for batch in found:
            asked = request(
                self.instance,
                self.watch.graph,
                batch,
                attempts=self.settings.attempts,
                priority=max(self.settings.of(node).priority for node in batch.nodes),
            )
            if asked is Refusal.EXHAUSTED:
                self.exhausted.append(batch)
            elif isinstance(asked, Refusal):
                self.postponed.append(batch)
            else:
                self._register(batch)
                self.requests.append(asked)
                self.watch.asked[str(asked.run_key)] = batch

    def _register(self, batch: Batch) -> None:
        """Register the partitions of a run where the look at the whole grain may not be there."""
        grain = batch.nodes[0].grain
        if grain is not None and (grain in self.watch.unsynced or grain in self.watch.syncs):
            register(self.instance, grain, batch.partitions)


def _try(node: TableNode) -> None:
    """Find out which keys `make` is given, which a key source that is wrong does not say."""
    _ = node.coarse
