"""Failed keys that Dagster does not show as failed, and keys that it shows so without a reason.

A key has failed when its job is in error, whichever worker tried it. Dagster shows a partition as
failed when a run was to make it and failed. Failures of workers outside Dagster, and of deleted
runs, are therefore assigned to one failed run a table, which was never executed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    MetadataValue,
    RunsFilter,
)

from dj_dagster.errors import counted
from dj_dagster.model.heading import Row, Value
from dj_dagster.orchestration._dagster import make_new_run_id
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark, Origin
from dj_dagster.orchestration.runs.run_records import OUTSIDE_TAG
from dj_dagster.orchestration.runs.shown_marks import MISSING, Shown, shown
from dj_dagster.orchestration.sensor.changes import Errors
from dj_dagster.orchestration.tables.grains import ERRORS_SHOWN
from dj_dagster.orchestration.tables.partitions import present_among
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.fetching import fetch
from dj_dagster.relational.sql.select import make_window
from dj_dagster.workflow.jobs import JobQueue

TRACEBACK = 4000
"""Characters of the end of a traceback that a key's page has, at most."""


def failure_marks(
    keys: Iterable[AssetKey], partition: str | None, error: str, traceback: str, *, plan: bool
) -> list[Mark]:
    """Return the marks of a failed partition of a table and its parts.

    Parameters
    ----------
    plan
        Whether to write a plan too, so that Dagster shows the partition as failed.
    """
    metadata: dict[str, object] = {"error": MetadataValue.text(error)}
    if traceback:
        metadata["traceback"] = MetadataValue.text(traceback[-TRACEBACK:])
    marks: list[Mark] = []
    for key in keys:
        if plan:
            marks.append(Mark(key, partition, planned=True))
        marks.append(Mark(key, partition, metadata, note=f"Failed: {error}"))
    return marks


def compare_failures(
    instance: DagsterInstance,
    node: TableNode,
    parts: Collection[AssetKey],
    partitions: Sequence[str],
    errors: Errors,
) -> tuple[int, list[str]]:
    """Show those of some partitions as failed that have errors, and take other failures back.

    Without a job queue, the runs alone tell the failures of a table, and all of them stay.

    Parameters
    ----------
    parts
        The parts of the table, which are shown like the table.
    errors
        The failed jobs of the table.

    Returns
    -------
    tuple
        The number of marks written, and the partitions that are shown as failed although their
        rows are there.
    """
    states = shown(instance, node.key, partitions, notes=True)
    # A part may be shown otherwise than its master if only the master was marked anew.
    of_parts = [shown(instance, part, partitions) for part in parts]
    failed, wrongly = dict[str, Shown](), list[str]()
    for partition in partitions:
        state = states.get(partition, MISSING)
        if partition in errors:
            if state.state != "running" and not (state.state == "failed" and state.noted):
                failed[partition] = state
        elif any(s.get(partition, MISSING).state == "failed" for s in (states, *of_parts)):
            wrongly.append(partition)
    present = _present(node, wrongly)
    keys = [node.key, *parts]
    written = _fail(instance, node, keys, failed, errors) if failed else 0
    if node.reservable:
        # Only runs tell the failures of tables without a job queue.
        written += _clear(instance, keys, [p for p in wrongly if p not in present])
    return written, [p for p in wrongly if p in present]


def _fail(
    instance: DagsterInstance,
    node: TableNode,
    keys: Sequence[AssetKey],
    failed: Mapping[str, Shown],
    errors: Errors,
) -> int:
    messages = _messages(node, failed, errors)
    outside, inside = list[Mark](), list[Mark]()
    for partition, state in failed.items():
        if partition in messages:
            plan = state.state != "failed"
            marks = failure_marks(keys, partition, *messages[partition], plan=plan)
            (outside if plan else inside).extend(marks)
    written = write_marks(instance, inside)
    if outside:
        written += write_marks(instance, outside, _outside(instance, node, keys))
    return written


def _clear(instance: DagsterInstance, keys: Iterable[AssetKey], partitions: Sequence[str]) -> int:
    """Show failed partitions as missing, by a later plan that does not belong to a run."""
    if not partitions:
        return 0
    written = 0
    for key in keys:
        written += write_marks(instance, [Mark(key, p, planned=True) for p in partitions])
        # In Dagster's cache a failed partition would stay failed until it is made.
        instance.event_log_storage.wipe_asset_cached_status(key)
    return written


def _present(node: TableNode, partitions: Sequence[str]) -> set[str]:
    return set(node.finished(sorted(present_among(node, partitions))))


def _messages(
    node: TableNode, partitions: Iterable[str], errors: Errors
) -> dict[str, tuple[str, str]]:
    """Return the error and the traceback of each partition whose jobs are still there."""
    rows = JobQueue(node.table).rows
    wanted = {row: p for p in partitions for row in errors[p][:ERRORS_SHOWN]}
    names = [*rows.key, "error_message", "error_stack"]
    found: dict[str, list[tuple[Row, str, Value]]] = {}
    failed = rows.node("error", rows=wanted)
    window = make_window(rows.key, None, None, failed.heading)
    for *row, message, stack in fetch.rows(rows.connection, failed, names, window):
        key = dict(zip(rows.key, row, strict=True))
        found.setdefault(wanted[tuple(row)], []).append((key, message, stack))
    return {
        partition: (
            _together(jobs, len(errors[partition])) if node.coarse else jobs[0][1],
            str(jobs[0][2] or ""),
        )
        for partition, jobs in found.items()
    }


def _together(jobs: Sequence[tuple[Row, str, Value]], failed: int) -> str:
    texts = "; ".join(f"{key}: {message}" for key, message, _ in jobs)
    return f"{counted(failed, 'key')} failed: {texts}{', ...' if failed > len(jobs) else ''}"


def _outside(instance: DagsterInstance, node: TableNode, keys: Sequence[AssetKey]) -> Origin:
    """Return the failed run that stands for all failures of a table whose run is not known."""
    name = node.key.to_user_string()
    wanted = RunsFilter(tags={OUTSIDE_TAG: name}, statuses=[DagsterRunStatus.FAILURE])
    runs = instance.get_runs(wanted, limit=1)
    if runs:
        return Origin(runs[0].run_id, runs[0].job_name)
    run = DagsterRun(
        job_name=f"failed_outside_of_runs__{'__'.join(node.key.path)}",
        run_id=make_new_run_id(),
        status=DagsterRunStatus.FAILURE,
        tags={OUTSIDE_TAG: name},
        asset_selection=frozenset(keys),
    )
    instance.add_run(run)
    return Origin(run.run_id, run.job_name)
