"""The sensor that keeps Dagster true to the tables and starts populate runs for what is pending."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetKey,
    AssetSelection,
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from dj_dagster.errors import ConnectionFailedError, DataJointError
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.reconcile import (
    Changes,
    mark_row_count,
    mark_rows,
    sync_partitions,
)
from dj_dagster.orchestration.requests import (
    Batch,
    grain_batches,
    request,
    single_batch,
)
from dj_dagster.orchestration.table_graph import TableGraph, TableNode
from dj_dagster.orchestration.unfinished import HeldKeys, held_keys
from dj_dagster.relational.connection import Connection

SENSOR_NAME = "populate_sensor"


@dataclass(frozen=True)
class SensorSettings:
    """How the sensor works.

    Attributes
    ----------
    interval
        Seconds between ticks, at least. Dagster looks at sensors every 5 s or so; with 5 here a
        look that comes a moment early would find the time not up, and every other one be lost.
    batch_size
        Keys of one run, at most. A run costs 2 s of processor time before its first key.
    max_batches
        Runs that one tick asks for, at most, in each grain.
    max_marks
        Marks that one tick writes for rows it finds, at most, in each table.
    attempts
        How often the same batch is run while its keys stay pending without an error.
    """

    interval: int = 3
    batch_size: int = 1000
    max_batches: int = 10
    max_marks: int = 10_000
    attempts: int = 3


@dataclass
class Tick:
    """One evaluation of the sensor, and what went wrong in it."""

    instance: DagsterInstance
    graph: TableGraph
    settings: SensorSettings
    managed: frozenset[AssetKey]
    changes: Changes = field(default_factory=Changes)
    requests: list[RunRequest] = field(default_factory=list[RunRequest])
    exhausted: list[Batch] = field(default_factory=list[Batch])
    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    _unreachable: set[Connection] = field(default_factory=set[Connection])

    def evaluate(self) -> None:
        """Register partitions, mark rows, and collect requests for what is pending."""
        for grain in self.graph.grains:
            self._try(grain.name, self._connection(grain), self._sync, grain)
        # Read before the tables: a run that ends in between still counts as unfinished then.
        held = held_keys(self.instance, self.graph)
        for node in self.graph.nodes:
            self._try(node.title, node.table.connection, self._mark, node, held)
        for grain in self.graph.grains:
            self._try(grain.name, self._connection(grain), self._request_grain, grain, held)
        for node in self.graph.populated:
            if node.grain is None:
                self._try(node.title, node.table.connection, self._request_single, node, held)

    def _connection(self, grain: Grain) -> Connection:
        return self.graph.of_grain(grain)[0].table.connection

    def _sync(self, grain: Grain) -> None:
        self.changes += sync_partitions(self.instance, self.graph, grain)

    def _mark(self, node: TableNode, held: HeldKeys) -> None:
        if node.key in self.managed or node.key in held.whole:
            return
        if node.grain is not None:
            limit = self.settings.max_marks
            self.changes += mark_rows(self.instance, node, but=held.of(node.key), limit=limit)
        elif not node.populated:
            self.changes += mark_row_count(self.instance, node)

    def _request_grain(self, grain: Grain, held: HeldKeys) -> None:
        size, limit = self.settings.batch_size, self.settings.max_batches
        self._add(grain_batches(self.graph, grain, held, size=size, limit=limit))

    def _request_single(self, node: TableNode, held: HeldKeys) -> None:
        self._add(single_batch(node, held))

    def _add(self, batches: list[Batch]) -> None:
        for batch in batches:
            attempts = self.settings.attempts
            found = request(self.instance, self.graph, batch, attempts=attempts)
            if found is None:
                self.exhausted.append(batch)
            else:
                self.requests.append(found)

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


def populate_sensor(
    graph: TableGraph, *, managed: Iterable[AssetKey], settings: SensorSettings
) -> SensorDefinition:
    """Return the sensor of some tables; it is on from the start.

    Parameters
    ----------
    managed
        Assets of the graph that are the user's own, which mark themselves when they run.
    """
    own = frozenset(managed)
    targets = [node.key for node in graph.populated]
    parts = [part.key for node in graph.populated for part in graph.parts(node)]

    @sensor(
        name=SENSOR_NAME,
        asset_selection=AssetSelection.assets(*targets, *parts),
        minimum_interval_seconds=settings.interval,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sees new and deleted rows, and starts runs for keys that are pending.",
    )
    def evaluate(context: SensorEvaluationContext) -> SensorResult:
        tick = Tick(context.instance, graph, settings, own)
        tick.evaluate()
        return _result(context, tick)

    return evaluate


def _result(context: SensorEvaluationContext, tick: Tick) -> SensorResult:
    if tick.errors and not tick.requests:
        raise DataJointError(_errors_text(tick))
    if tick.errors:
        context.log.error(_errors_text(tick))
    for batch in tick.exhausted:
        context.log.warning(_exhausted_text(batch))
    if tick.requests:
        return SensorResult(run_requests=tick.requests)
    return SensorResult(skip_reason=f"Nothing is pending; {tick.changes}.")


def _errors_text(tick: Tick) -> str:
    return "\n".join(
        f"{what}: {type(error).__name__}: {error}" for what, error in tick.errors.items()
    )


def _exhausted_text(batch: Batch) -> str:
    tables = ", ".join(node.title for node in batch.nodes)
    first = batch.partitions[0] if batch.partitions else "its row"
    return (
        f"{tables}: {len(batch.partitions) or 1} keys, the first {first}, were run without an "
        "error and are pending still. A make that inserts nothing for a key leaves it pending: "
        "let key_source leave such keys out."
    )
