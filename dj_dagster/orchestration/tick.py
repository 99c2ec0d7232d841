"""One evaluation of the sensor: what has changed is looked at, marked, and asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dagster import (
    AssetKey,
    DagsterInstance,
    RunRequest,
    RunsFilter,
)
from dagster._core.storage.tags import RUN_KEY_TAG

from dj_dagster.errors import ConnectionFailedError
from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.reconcile import (
    Changes,
    beginnings,
    mark_row_count,
    possible_in,
    register,
    sync_partitions,
    unmarked_in,
)
from dj_dagster.orchestration.requests import (
    Batch,
    batches,
    pending_partitions,
    request,
    single_batch,
)
from dj_dagster.orchestration.retries import NO_RETRIES
from dj_dagster.orchestration.sensor_settings import SensorSettings
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.orchestration.unfinished import HeldKeys
from dj_dagster.orchestration.watching import Watch
from dj_dagster.relational.database.connection import Connection


@dataclass
class Tick:
    """One evaluation of the sensor, and what went wrong in it."""

    instance: DagsterInstance
    watch: Watch
    settings: SensorSettings
    managed: frozenset[AssetKey]
    changes: Changes = field(default_factory=Changes)
    requests: list[RunRequest] = field(default_factory=list[RunRequest])
    exhausted: list[Batch] = field(default_factory=list[Batch])
    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    held: HeldKeys = field(default_factory=HeldKeys)
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    @property
    def graph(self) -> TableGraph:
        """The tables."""
        return self.watch.graph

    def evaluate(self) -> None:
        """Register partitions, mark rows, and collect requests for what is pending."""
        began = time.monotonic()
        # Read before the tables: a run that ends in between still counts as unfinished then.
        self._see_runs()
        for connection in self.watch.connections:
            self._try(connection.url, connection, self.watch.see_changes, connection)
        sweeping = self.watch.swept is None or (
            began - self.watch.swept > self.settings.sweep and self.watch.pauses["sweep"].over
        )
        if sweeping:
            self.watch.sweep()
        self._reconcile()
        self._request()
        if sweeping:
            self.watch.pauses["sweep"].after(began)

    def _see_runs(self) -> None:
        for ended in self.watch.runs.read(self.instance, self.graph):
            self._look_again(ended)
        for run_key, batch in list(self.watch.asked.items()):
            runs = self.instance.get_runs(RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1)
            if not runs or runs[0].is_finished:
                self.watch.retry_batch(batch)
            del self.watch.asked[run_key]
        self.held = self.watch.runs.held()

    def _look_again(self, ended: HeldKeys) -> None:
        for key, partitions in ended.partitions.items():
            node = self.graph.by_key[key]
            if node.populated and node.grain is not None:
                self.watch.retry(node, map(node.grain.decode, partitions))
        for key in ended.whole:
            node = self.graph.by_key[key]
            if node.populated:
                self.watch.retry_all(node)

    def _reconcile(self) -> None:
        watch = self.watch
        new: list[bool] = []
        for name in sorted(watch.dirty):
            self._try(str(name), watch.connection_of(name), self._look, name, new)
        compare = partial(watch.compare, busy=any(new))
        for name in sorted(watch.dirty):
            self._try(str(name), watch.connection_of(name), compare, name)
        for connection in watch.connections:
            self._try(connection.url, connection, watch.free_dead, connection)
        for key in {
            *watch.unread_errors,
            *(k for k, waiting in watch.errors.items() if waiting.due),
        }:
            node = self.graph.by_key[key]
            self._try(node.title, node.table.connection, self._retry_errors, node)
        for grain in self.graph.grains:
            if grain in watch.unsynced and watch.pauses[grain].over:
                self._try(grain.name, self._connection(grain), self._sync, grain)
        for key in [key for key, regions in watch.possible.items() if regions]:
            node = self.graph.by_key[key]
            self._try(node.title, node.table.connection, self._register, node)
        for key in [key for key, regions in watch.unmarked.items() if regions]:
            node = self.graph.by_key[key]
            self._try(node.title, node.table.connection, self._find_unmarked, node)
        for key in [key for key, partitions in watch.backlog.items() if partitions]:
            self._write_marks(self.graph.by_key[key])

    def _retry_errors(self, node: TableNode) -> None:
        watch, policy = self.watch, self.settings.of(node).retries or NO_RETRIES
        if node.key in watch.unread_errors:
            watch.errors[node.key].read(self.instance, node, policy)
            watch.unread_errors.discard(node.key)
        free = watch.errors[node.key].free(node)
        if free:
            watch.retry(node, free)

    def _request(self) -> None:
        waiting = {
            key
            for key, regions in self.watch.pending.items()
            if regions and self.settings.of(self.graph.by_key[key]).automatic
        }
        for grain in self.graph.grains:
            nodes = [node for node in self.graph.of_grain(grain) if node.key in waiting]
            if nodes:
                self._try(grain.name, self._connection(grain), self._request_grain, grain, nodes)
        for node in self.graph.populated:
            if node.grain is None and node.key in waiting:
                self._try(node.title, node.table.connection, self._request_single, node)

    def _look(self, name: TableName, new: list[bool]) -> None:
        new.append(self.watch.look(name))

    def _connection(self, grain: Grain) -> Connection:
        return self.graph.of_grain(grain)[0].table.connection

    def _sync(self, grain: Grain) -> None:
        began = time.monotonic()
        self.changes += sync_partitions(self.instance, self.graph, grain)
        self.watch.unsynced.discard(grain)
        for node in self.graph.of_grain(grain):
            self.watch.possible.pop(node.key, None)
        self.watch.pauses[grain].after(began)

    def _register(self, node: TableNode) -> None:
        """Register the partitions of new rows, and of new keys for `make`."""
        regions = self.watch.possible[node.key]
        if node.grain is not None and node in beginnings(self.graph, node.grain):
            if regions.whole:
                # The grain is looked at as a whole, and soon.
                self.watch.unsynced.add(node.grain)
            else:
                partitions = possible_in(node, regions)
                register(self.instance, node.grain, partitions)
                self.changes += Changes(added=len(partitions))
        del self.watch.possible[node.key]

    def _find_unmarked(self, node: TableNode) -> None:
        regions, watch = self.watch.unmarked[node.key], self.watch
        if node.key in self.held.whole:
            return
        pause = watch.pauses[node.key, "marks"]
        if node.key not in self.managed:
            if node.grain is None:
                if not node.populated:
                    self.changes += mark_row_count(self.instance, node)
            elif not regions.whole or pause.over:
                began = time.monotonic()
                found = unmarked_in(self.instance, node, regions)
                watch.backlog[node.key] = deque(dict.fromkeys([*watch.backlog[node.key], *found]))
                if regions.whole:
                    pause.after(began)
            else:
                return
        del watch.unmarked[node.key]

    def _write_marks(self, node: TableNode) -> None:
        backlog, busy = self.watch.backlog[node.key], self.held.of(node.key)
        wanted = [backlog.popleft() for _ in range(min(len(backlog), self.settings.max_marks))]
        # A run that holds a key is going to mark it; if it does not, its end makes us look again.
        marks = [Mark(node.key, partition) for partition in wanted if partition not in busy]
        self.changes += Changes(marked=write_marks(self.instance, marks))

    def _request_grain(self, grain: Grain, nodes: list[TableNode]) -> None:
        size, limit = self._batch_size(grain), self.settings.max_batches
        found: dict[AssetKey, list[str]] = {}
        complete: set[AssetKey] = set()
        for node in nodes:
            regions, pause = self.watch.pending[node.key], self.watch.pauses[node.key]
            if regions.whole and not pause.over:
                continue
            began = time.monotonic()
            found[node.key], ended = pending_partitions(node, regions, self.held, size * limit)
            if regions.whole:
                pause.after(began)
            if ended:
                complete.add(node.key)
        automatic = {n.key for n in self.graph.populated if self.settings.of(n).automatic}
        asked, all_in = batches(self.graph, found, self.held, size=size, limit=limit, of=automatic)
        self._add(asked)
        if all_in:
            for key in complete:
                del self.watch.pending[key]

    def _batch_size(self, grain: Grain) -> int:
        nodes = [node for node in self.graph.of_grain(grain) if node.populated]
        return min(self.settings.of(node).batch_size for node in nodes)

    def _request_single(self, node: TableNode) -> None:
        if node.key in self.held.whole:
            return
        self._add(single_batch(node, self.held))
        del self.watch.pending[node.key]

    def _add(self, found: list[Batch]) -> None:
        for batch in found:
            attempts = self.settings.attempts
            priority = max(self.settings.of(node).priority for node in batch.nodes)
            asked = request(self.instance, self.graph, batch, attempts=attempts, priority=priority)
            if asked is None or asked.run_key is None:
                self.exhausted.append(batch)
            else:
                self.requests.append(asked)
                self.watch.asked[asked.run_key] = batch

    def _try(
        self, what: str, connection: Connection, action: Callable[..., None], *args: Any
    ) -> None:
        """Do one thing; its failure is kept for the end, and stops nothing else.

        A database that cannot be reached is asked once in a tick.
        """
        if connection in self._unreachable:
            return
        try:
            action(*args)
        except Exception as error:
            self.errors[what] = error
            if isinstance(error, ConnectionFailedError):
                self._unreachable.add(connection)
