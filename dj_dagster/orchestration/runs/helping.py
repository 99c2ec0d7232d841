"""One run on several machines: helpers make its keys too, and the run waits for them.

The run's own process executes its steps, and alone writes marks. Helpers claim keys in the tables'
queues as any worker does. If one dies, the run takes over its keys once its lease is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from dagster import DagsterInstance, DagsterRun

from dj_dagster.errors import DataJointError, PopulateError
from dj_dagster.launcher_tags import HELPERS_TAG
from dj_dagster.model.heading import Key, Values
from dj_dagster.orchestration.pipeline import Pipeline
from dj_dagster.orchestration.runs.run_records import RunChoice
from dj_dagster.orchestration.runs.work import Work, outcomes
from dj_dagster.orchestration.tables.partitions import decoded
from dj_dagster.orchestration.tables.table_node import OwnPopulator, TableNode
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.attempt import KeyOutcome
from dj_dagster.workflow.jobs import JobQueue
from dj_dagster.workflow.notes import noted_run

PAUSE = 1.0
"""Seconds between two looks at keys that others make, or may leave to make."""


def has_helpers(run: DagsterRun) -> bool:
    """Return whether a run has helpers."""
    # A run that is executed again begins with the tags of the run before.
    return run.tags.get(HELPERS_TAG, "").startswith(f"{run.run_id} ")


def help_run(instance: DagsterInstance, run_id: str, pipelines: Iterable[Pipeline]) -> int:
    """Make keys of a run's tables until the run has ended; return how many were made here."""
    pipelines, made = list(pipelines), 0
    with noted_run(run_id):
        while (run := instance.get_run_by_id(run_id)) is not None and not run.is_finished:
            before = made
            for pipeline in pipelines:
                made += _help(instance, run, pipeline)
            if made == before:
                time.sleep(PAUSE)
    return made


def _help(instance: DagsterInstance, run: DagsterRun, pipeline: Pipeline) -> int:
    """Make keys that are pending now, and return how many."""
    made, choice, selected = 0, RunChoice(instance, run), run.asset_selection or ()
    for node in pipeline.graph.populated:
        if node.key not in selected or not _is_shared(node):
            continue
        # What is wrong with the run's choice, its own process says.
        with suppress(DataJointError):
            named = choice.configured(node)
            keys = None if named is None or node.grain is None else decoded(node.grain, named)
            # Keys that have failed are tried again by the run's own process alone.
            found = outcomes(node, keys, retry_errors=False, work=pipeline.works[node.key])
            made += sum(outcome.status == "made" for outcome in found)
    return made


def _is_shared(node: TableNode) -> bool:
    """Whether the table has a queue in which several workers can claim keys."""
    return isinstance(node.filled_by, OwnPopulator) and node.filled_by.reservable


def with_helpers(
    node: TableNode,
    found: Iterable[KeyOutcome],
    work: Work,
) -> Iterator[KeyOutcome]:
    """Yield outcomes of keys, after waiting for those that helpers make.

    Parameters
    ----------
    found
        The outcomes without waiting.
    work
        Whether keys that helpers have left are made here or in other processes.
    """
    held = list[Key]()
    for outcome in found:
        if outcome.status == "reserved" and _is_shared(node):
            held.append(outcome.key)
        else:
            yield outcome
    while held:
        time.sleep(PAUSE)
        states = _states(node, held)
        waiting = list[Key]()
        for outcome in outcomes(node, held, retry_errors=False, work=work):
            state, failure = states.get(tuple(outcome.key.values()), ("", None))
            if outcome.status != "reserved":
                yield outcome
            elif state == "reserved":
                waiting.append(outcome.key)
            else:
                yield failure or outcome
        held = waiting


def _states(node: TableNode, keys: list[Key]) -> Mapping[Values, tuple[str, KeyOutcome | None]]:
    """Return the statuses of keys in the table's queue, with the outcomes of those that failed."""
    queue = JobQueue(node.table)
    names = [*queue.rows.key, "status", "error_message", "error_stack"]
    rows = {queue.row(key): key for key in keys}
    jobs = fetch.rows(queue.connection, queue.rows.node(rows=rows), names)
    known = queue.rows.by_asked({row[:-3]: row[-3:] for row in jobs}, list(rows))
    return {
        tuple(rows[row].values()): (
            status,
            KeyOutcome(rows[row], "failed", error=PopulateError(message), traceback=stack or "")
            if status == "error"
            else None,
        )
        for row, (status, message, stack) in known.items()
    }
