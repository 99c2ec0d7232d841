"""What a populate run does inside a step: make keys, mark each as it finishes, fail at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dagster import (
    AssetKey,
    Failure,
    MetadataValue,
)

from dj_dagster.orchestration.aging import Aging
from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.failures import failure_marks
from dj_dagster.orchestration.node_keys import own_table
from dj_dagster.orchestration.progress import Progress, Shown
from dj_dagster.orchestration.provenance import Provenance
from dj_dagster.orchestration.recompute import OnExisting, made_again
from dj_dagster.orchestration.row_marks import unmarked
from dj_dagster.orchestration.step import Marks, Step
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.orchestration.work import HERE, Work
from dj_dagster.workflow.notes import NoteTaker
from dj_dagster.workflow.populate import KeyOutcome

ERRORS_SHOWN = 20
"""Failing keys whose traceback goes into the run's log; all are in the table's jobs."""

ERRORS_LISTED = 500
"""Failing keys that the failure lists by name, at most."""

ERRORS_NAMED = 20
"""Failing keys that the error of a step names in its text, at most; the others are counted."""

LONGEST_ERROR = 500
"""Characters of one key's error in that text, at most."""

PRESENT = "Its rows are there already, and current as far as is known: nothing was made."
"""What the page of a key says after a run that was to make it."""

UNTRIED = ("missing", "present", "left")
"""What is not made, and has not failed."""

SKIP_EXISTING = OnExisting()


def populate_table(
    step: Step,
    graph: TableGraph,
    node: TableNode,
    keys: Iterable[dict[str, Any]] | None,
    *,
    planned: Collection[str] = (),
    retry_errors: bool,
    work: Work = HERE,
    existing: OnExisting = SKIP_EXISTING,
) -> Progress:
    """Make the keys that are pending, and mark each in the event log when it is in the table.

    Parameters
    ----------
    graph
        All tables: the parts of this one are marked with it.
    keys
        Keys of the table's grain. None for all that are pending.
    planned
        Partitions that Dagster shows as failed if the run fails, unless they are marked in it.
    retry_errors
        Whether keys that failed before are tried again.
    work
        Whether keys are made here or in other processes.
    existing
        What becomes of keys that have their rows already. Those that are left as they are keep
        their marks; a run that a person started notes on their pages that they are there.

    Raises
    ------
    DataJointError
        When the database cannot be used at all; a failing `make` is no reason to raise.
    """
    keys = None if keys is None else list(keys)
    parts = [part.key for part in graph.parts(node)]
    progress = Progress(node.title, total=None if keys is None else len(keys))
    shown = Shown(step, node, progress)
    step.log.info(f"{node.title}: {'all' if keys is None else len(keys)} keys are to be made")
    aging = Aging(step.instance, graph, node)
    provenance = Provenance(step.instance, graph, node, step.origin.run_id)
    marks = Marks(step, provenance, shown.with_rows)
    notes = NoteTaker(node.table, node.maker.key_names, node.staleness.code)
    there, withdrawn = list[str](), list[Mark]()
    outcomes = made_again(graph, aging, node, keys, existing, retry_errors=retry_errors, work=work)
    try:
        for outcome in outcomes:
            partition = node.grain.encode(outcome.key) if node.grain else None
            progress.add(partition or node.title, outcome)
            if outcome.error is not None:
                _log_error(step, progress, partition, outcome)
            if outcome.status == "present" and partition is not None:
                there.append(partition)
            if outcome.status in UNTRIED and partition in planned:
                withdrawn += [Mark(key, partition, planned=True) for key in (node.key, *parts)]
            if own_table(node) is None and outcome.status == "made":
                # DataJoint has made it, which takes no notes.
                notes.look([outcome.key])
                notes.note(outcome.key)
                notes.write_if_due()
            if marks.add(_marks(step, node, parts, partition, outcome, planned, shown)):
                shown.tell()
    finally:
        notes.close()
        # Dagster would show these as failed too if the run fails, although nothing was tried for
        # them: a later plan of no run takes its plan back. As all plans, before marks.
        write_marks(step.instance, withdrawn)
        marks.write()
    _mark_unmarked(step, graph, node, aging, there)
    if progress.failed:
        step.tell_failed(len(progress.failed))
    step.log.info(str(progress))
    return progress


def _mark_unmarked(
    step: Step, graph: TableGraph, node: TableNode, aging: Aging, partitions: Sequence[str]
) -> None:
    """Mark those rows that were there already and that Dagster does not know of."""
    for each in (node, *graph.parts(node)):
        lacking = unmarked(step.instance, each, list(partitions))
        write_marks(step.instance, aging.marks(each, lacking))


def raise_if_failed(*all_progress: Progress) -> None:
    """Fail the step when keys failed, naming them with their errors.

    Raises
    ------
    dagster.Failure
        Without retries: Dagster's would do the finished keys over again.
    """
    failed = [progress for progress in all_progress if progress.failed]
    if not failed:
        return
    errors = {
        f"{progress.title} {partition}": error
        for progress in failed
        for partition, error in progress.failed.items()
    }
    named = [f"{key}: {_shortened(error)}" for key, error in list(errors.items())[:ERRORS_NAMED]]
    if len(errors) > len(named):
        named.append(f"and {len(errors) - len(named)} more")
    raise Failure(
        description=f"{len(errors)} keys failed: {'; '.join(named)}",
        metadata={
            "failed": len(errors),
            "failed_keys": MetadataValue.json(dict(list(errors.items())[:ERRORS_LISTED])),
            "failed_keys_left_out": max(0, len(errors) - ERRORS_LISTED),
            "progress": "; ".join(map(str, all_progress)),
        },
        allow_retries=False,
    )


def _shortened(error: str) -> str:
    """Return the beginning of an error that is too long to stand among others."""
    return error if len(error) <= LONGEST_ERROR else f"{error[:LONGEST_ERROR]}..."


def _marks(
    step: Step,
    node: TableNode,
    parts: Collection[AssetKey],
    partition: str | None,
    outcome: KeyOutcome,
    planned: Collection[str],
    shown: Shown,
) -> list[Mark]:
    if outcome.status == "made":
        metadata = {
            "rows": outcome.rows,
            "bytes": outcome.bytes,
            "seconds_make": round(outcome.seconds, 6),
        }
        shown.made(partition, outcome.key)
        return [Mark(node.key, partition, metadata), *(Mark(part, partition) for part in parts)]
    if outcome.status == "present" and step.by_person:
        return [Mark(node.key, partition, note=PRESENT)]
    if outcome.status == "left":
        return [Mark(node.key, partition, note=f"Not made again. {outcome.error}")]
    if outcome.status == "failed":
        plan = partition is not None and partition not in planned
        keys, text = (node.key, *parts), outcome.message
        return failure_marks(keys, partition, text, outcome.traceback, plan=plan)
    return []


def _log_error(step: Step, progress: Progress, partition: str | None, outcome: KeyOutcome) -> None:
    failed = len(progress.failed)
    if failed <= ERRORS_SHOWN:
        step.log.error(f"{progress.title} {partition or ''} failed\n{outcome.traceback}")
    elif failed == ERRORS_SHOWN + 1:
        step.log.error("More keys fail; their errors are listed at the end and in the jobs table.")
