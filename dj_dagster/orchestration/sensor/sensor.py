"""The sensor that keeps Dagster true to the tables and starts populate runs for pending keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from dagster import (
    AssetSelection,
    DagsterInstance,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from dj_dagster.errors import DataJointError, named_text
from dj_dagster.orchestration.checks import CheckWatch, check_watch, code_watch
from dj_dagster.orchestration.merge import renamable
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.stale_marks import CodeWatch
from dj_dagster.orchestration.sensor.requests import Batch
from dj_dagster.orchestration.sensor.state import SensorState
from dj_dagster.orchestration.sensor.tick import TickResult, evaluate
from dj_dagster.orchestration.tables.table_graph import TableGraph

SENSOR_NAME = "populate_sensor"

UNFINISHED = "unfinished"
"""The cursor of a tick that has left long work to the next ones."""


class SensorStates:
    """The states of the sensor, one for each Dagster instance."""

    def __init__(
        self,
        graph: TableGraph,
        code: Callable[[], CodeWatch],
        checks: Callable[[], CheckWatch],
    ) -> None:
        self._graph = graph
        self._code = code
        self._checks = checks
        self._states: dict[str, SensorState] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, instance: DagsterInstance) -> Generator[SensorState]:
        """Yield the state of an instance to one tick at a time; drop the state after an error."""
        with self._lock:
            name = repr(instance.get_ref()) if instance.is_persistent else ""
            state = self._states.pop(name, None)
            state = state or SensorState(self._graph, self._code(), self._checks())
            yield state
            if name:
                self._states[name] = state


def populate_sensor(pipeline: Pipeline) -> SensorDefinition:
    """Return the sensor of a pipeline's tables; it is on from the start."""
    return renamable(partial(_populate_sensor, pipeline), pipeline)


def _populate_sensor(pipeline: Pipeline, end: str) -> SensorDefinition:
    graph, settings, checks = pipeline.graph, pipeline.settings, pipeline.checks
    automatic = [node for node in graph.populated if settings.of(node).automatic]
    targets = [node.key for node in automatic]
    parts = [part.key for node in automatic for part in graph.parts(node)]
    states = SensorStates(
        graph, partial(code_watch, graph, checks), partial(check_watch, graph, checks)
    )

    @sensor(
        name=SENSOR_NAME + end,
        asset_selection=AssetSelection.assets(*targets, *parts),
        minimum_interval_seconds=settings.interval,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sees new and deleted rows, and starts runs for keys that are pending.",
    )
    def tick(context: SensorEvaluationContext) -> SensorResult:
        with states.of(context.instance) as state:
            done = evaluate(state, context.instance, settings, pipeline.managed)
        return _result(context, done)

    return tick


def goes_on(result: SensorResult) -> bool:
    """Return whether a tick has left long work to the next ones."""
    return result.cursor == UNFINISHED


def _result(context: SensorEvaluationContext, done: TickResult) -> SensorResult:
    if done.errors and not done.requests:
        raise DataJointError(_errors_text(done))
    if done.errors:
        context.log.error(_errors_text(done))
    for batch in done.exhausted:
        context.log.warning(_exhausted_text(batch))
    if done.requests:
        return SensorResult(run_requests=done.requests)
    so_far = " so far: the look at whole tables goes on in the next tick" if done.goes_on else ""
    return SensorResult(
        skip_reason=f"Nothing is pending{so_far}; {done.changes}.",
        cursor=UNFINISHED if done.goes_on else "",
    )


def _errors_text(done: TickResult) -> str:
    return "\n".join(f"{what}: {named_text(error)}" for what, error in done.errors.items())


def _exhausted_text(batch: Batch) -> str:
    tables = ", ".join(node.title for node in batch.nodes)
    first = batch.partitions[0] if batch.partitions else "its row"
    return (
        f"{tables}: {len(batch.partitions) or 1} keys, the first {first}, were run without an "
        "error and are pending still. A make that inserts nothing for a key leaves it pending: "
        "let key_source leave such keys out."
    )
