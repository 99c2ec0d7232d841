"""The sensor that keeps Dagster true to the tables and starts populate runs for pending keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

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

from dj_dagster.errors import DataJointError, counted, named_text
from dj_dagster.orchestration.checks import CheckWatch, check_watch, code_watch
from dj_dagster.orchestration.merge import renamable
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.stale_marks import CodeWatch
from dj_dagster.orchestration.sensor.requests import Batch
from dj_dagster.orchestration.sensor.sensor_settings import Budget, Evaluation, SensorSettings
from dj_dagster.orchestration.sensor.state import SensorState
from dj_dagster.orchestration.sensor.transitions import Event
from dj_dagster.orchestration.sharing import refuse_unshared
from dj_dagster.orchestration.tables.partitions import Changes
from dj_dagster.orchestration.tables.table_graph import TableGraph

HURRY = 2.0
"""Seconds that a tick with requests goes on with other work, at most: the runs wait for it."""


@dataclass(frozen=True)
class TickResult:
    """The result of a tick.

    Attributes
    ----------
    exhausted
        Batches that are not requested any more.
    gathered
        Batches that wait for more keys.
    errors
        The errors, by the names of the actions that failed.
    goes_on
        Whether work was left to the next ticks.
    """

    requests: list[RunRequest]
    exhausted: list[Batch]
    gathered: list[Batch]
    errors: dict[str, Exception]
    changes: Changes
    goes_on: bool


def evaluate(
    state: SensorState,
    instance: DagsterInstance,
    settings: SensorSettings,
    managed: frozenset[AssetKey],
) -> TickResult:
    """Register partitions, mark rows, and return requests for pending keys.

    Changes since the last tick come first, so that the keys of new rows are requested whatever else
    is to be done. Long work gets the time that is left.

    Parameters
    ----------
    managed
        Assets of the user's own, which mark themselves.
    """
    began, budget = time.monotonic(), Budget(settings.tick_seconds)
    # Read before the tables: a run that ends in between still counts as unfinished then.
    held = state.see_runs(instance)
    tick = Evaluation(instance, settings, managed, held, budget)
    _detect(state, tick)
    if state.partitions.has_new:
        # A new partition may take the number of one that a person has removed.
        _see_records_now(state, instance)
    state.partitions.register_new(tick)
    requests = state.requester.request(tick)
    state.new_marks.find(tick)
    state.stale_marks.find(tick)
    if requests.runs:
        budget.shorten(HURRY)
    has_pieces_left = _go_on(state, tick)
    if tick.changes.added or requests.runs:
        # Partitions of requested runs were registered with the requests.
        _see_records_now(state, instance)
    _report(state, tick)
    goes_on = has_pieces_left or state.goes_on
    state.sweep.took(time.monotonic() - began, ended=not goes_on)
    return TickResult(
        requests.runs,
        requests.exhausted,
        requests.gathered,
        tick.guard.errors,
        tick.changes,
        goes_on or requests.goes_on,
    )


def _detect(state: SensorState, tick: Evaluation) -> None:
    """Detect changes: new rows first, then, as long as there is time, what takes long."""
    detection, guard = state.detection, tick.guard
    detection.see_changes(guard)
    state.see_records(tick.instance)
    if state.sweep.is_due(tick.settings.sweep):
        state.begin_sweep()
    has_rows = detection.look(guard)
    for name in detection.comparable(busy=has_rows):
        detection.compare(name, guard)
        if tick.budget.spent:
            break
    detection.free_dead(guard)
    for node, keys in state.retries.free(tick):
        state.note_keys(Event.KEYS_RETRIED, node, keys)


def _see_records_now(state: SensorState, instance: DagsterInstance) -> None:
    state.partitions.records.hurry()
    state.see_records(instance)


def _go_on(state: SensorState, tick: Evaluation) -> bool:
    """Do pieces of long work, one at least, while there is time; return whether any are left."""
    while pieces := _pieces(state, tick):
        # In turn over all ticks, so that each gets its share however short they are.
        first = state.turn % len(pieces)
        for owner, piece in pieces[first : first + TOGETHER]:
            # What one owner has done may change what another has to do.
            if owner is not pieces[first][0]:
                break
            state.turn += 1
            piece()
            if tick.budget.spent:
                return bool(_pieces(state, tick))
    return False


TOGETHER = 20
"""Pieces of one owner between two looks at what there is to do.

With one piece a look, looking was half of the first ticks' time over 300 tables.
"""


def _pieces(state: SensorState, tick: Evaluation) -> list[tuple[object, Callable[[], None]]]:
    """Return the pieces of long work that can be done now, each with its owner."""
    owners = (
        state.partitions,
        state.new_marks,
        state.stale_marks,
        state.failures,
        state.withdrawals,
    )
    return [(owner, piece) for owner in owners for piece in owner.pieces(tick)]


def _report(state: SensorState, tick: Evaluation) -> None:
    """Report the checks of tables without a run at work, as long as there is time."""
    busy = state.requester.asked_tables | tick.held.whole | tick.held.partitions.keys()
    try:
        state.code.report(tick.instance, busy)
    except Exception as error:
        tick.guard.errors["check current"] = error
    for key in state.checks.ready(busy):
        if tick.budget.spent:
            return
        node = state.graph.by_key[key]
        what, connection = f"checks of {node.title}", node.table.connection
        tick.guard.attempt(what, connection, state.checks.report, tick.instance, key)


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
        refuse_unshared(context.instance, graph)
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
    if done.gathered:
        return SensorResult(
            skip_reason=f"{_gathered_text(done.gathered)}; {done.changes}.",
            cursor=UNFINISHED if done.goes_on else "",
        )
    so_far = " so far: the look at whole tables goes on in the next tick" if done.goes_on else ""
    return SensorResult(
        skip_reason=f"Nothing is pending{so_far}; {done.changes}.",
        cursor=UNFINISHED if done.goes_on else "",
    )


def _errors_text(done: TickResult) -> str:
    return "\n".join(f"{what}: {named_text(error)}" for what, error in done.errors.items())


def _gathered_text(batches: list[Batch]) -> str:
    tables = ", ".join(sorted({node.title for batch in batches for node in batch.nodes}))
    keys = len({partition for batch in batches for partition in batch.partitions})
    return f"{tables}: {keys} pending, gathered until one of the runs in the queue begins"


def _exhausted_text(batch: Batch) -> str:
    tables = ", ".join(node.title for node in batch.nodes)
    first = batch.partitions[0] if batch.partitions else "its row"
    return (
        f"{tables}: its runs have left {counted(len(batch.partitions) or 1, 'key')} pending, "
        f"the first {first}, and the sensor asks for no more. See the error on its page; once it "
        "is mended, materialise the key. Let key_source leave keys out that cannot be made."
    )
