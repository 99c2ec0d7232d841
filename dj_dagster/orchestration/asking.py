"""The part of a tick that asks for runs, of what is pending where something has changed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from dagster import AssetKey, DagsterInstance, RunRequest

from dj_dagster.orchestration.attempts import Refusal
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.guard import Guard
from dj_dagster.orchestration.pauses import Budget
from dj_dagster.orchestration.registered import register
from dj_dagster.orchestration.requests import (
    Batch,
    batches,
    pending_partitions,
    request,
    single_batch,
)
from dj_dagster.orchestration.sensor_settings import SensorSettings
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.orchestration.unfinished import HeldKeys
from dj_dagster.orchestration.watching import Watch


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
