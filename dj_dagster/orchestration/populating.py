"""What a populate run does inside a step: make keys, mark each as it finishes, fail at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any

from dagster import (
    AssetKey,
    Enum,
    EnumValue,
    Failure,
    Field,
    MetadataValue,
)

from dj_dagster.orchestration.events import Mark, write_marks
from dj_dagster.orchestration.progress import Progress, Shown
from dj_dagster.orchestration.provenance import Provenance
from dj_dagster.orchestration.recompute import CHUNK, check_recompute, delete_existing
from dj_dagster.orchestration.step import Marks, Step
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.orchestration.work import HERE, Work, outcomes
from dj_dagster.workflow.populate import KeyOutcome

ERRORS_SHOWN = 20
"""Failing keys whose traceback goes into the run's log; all are in the table's jobs."""

ERRORS_LISTED = 500
"""Failing keys that the failure lists by name, at most."""

ERRORS_NAMED = 20
"""Failing keys that the error of a step names in its text, at most; the others are counted."""

LONGEST_ERROR = 500
"""Characters of one key's error in that text, at most."""

ON_EXISTING = Field(
    Enum("OnExisting", [EnumValue("skip"), EnumValue("recompute")]),
    default_value="skip",
    description="What becomes of keys that are there already: recompute deletes their rows, with "
    "all that depends on them, and makes them again.",
)


def populate_table(
    step: Step,
    graph: TableGraph,
    node: TableNode,
    keys: Iterable[dict[str, Any]] | None,
    *,
    planned: Collection[str] = (),
    retry_errors: bool,
    provenance: Provenance | None = None,
    work: Work = HERE,
    recompute: bool = False,
) -> Progress:
    """Make the keys that are pending, and mark each in the event log when it is in the table.

    Parameters
    ----------
    graph
        All tables: the parts of this one are marked with it.
    keys
        Keys of the table's grain; those that have their rows already are left as they are. None
        for all that are pending.
    planned
        Partitions that Dagster shows as failed if the run fails, unless they are marked in it:
        the finished ones among them are marked again.
    retry_errors
        Whether keys that failed before are tried again.
    provenance
        Gives the marks their versions; without it they have none.
    work
        Whether keys are made here or in other processes.
    recompute
        Whether rows that are there are deleted, with all that depends on them, and made again.

    Raises
    ------
    PopulateError
        When rows that people entered depend on those to be made again; nothing is deleted then.
    DataJointError
        When the database cannot be used at all; a failing `make` is no reason to raise.
    """
    keys = None if keys is None else list(keys)
    parts = [part.key for part in graph.parts(node)]
    progress = Progress(node.title, total=None if keys is None else len(keys))
    shown = Shown(step, node, progress)
    marks = Marks(step, provenance)
    withdrawn: list[Mark] = []
    step.log.info(f"{node.title}: {'all' if keys is None else len(keys)} keys are to be made")
    try:
        made = partial(_recomputed, graph) if recompute else outcomes
        for outcome in made(node, keys, retry_errors=retry_errors, work=work):
            partition = node.grain.encode(outcome.key) if node.grain else None
            progress.add(partition or node.title, outcome)
            if outcome.error is not None:
                _log_error(step, progress, partition, outcome)
            if outcome.status == "missing" and partition in planned:
                withdrawn += [Mark(key, partition, planned=True) for key in (node.key, *parts)]
            if marks.add(_marks(node, parts, partition, outcome, planned, shown)):
                shown.tell()
    finally:
        marks.write()
        # Dagster would show these as failed too if the run fails, although nothing was tried for
        # them: a later plan of no run takes its plan back.
        write_marks(step.instance, withdrawn)
    if progress.failed:
        step.tell_failed(len(progress.failed))
    step.log.info(str(progress))
    return progress


def _recomputed(
    graph: TableGraph,
    node: TableNode,
    keys: list[dict[str, Any]] | None,
    *,
    retry_errors: bool,
    work: Work,
) -> Iterator[KeyOutcome]:
    wanted = node.maker.keys() if keys is None else keys
    check_recompute(graph, node, wanted)
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        delete_existing(node, chunk)
        yield from outcomes(node, chunk, retry_errors=retry_errors, work=work)


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
            **shown.preview(outcome),
        }
        return [Mark(node.key, partition, metadata), *(Mark(part, partition) for part in parts)]
    if outcome.status == "present" and partition in planned:
        return [Mark(key, partition, again=True) for key in (node.key, *parts)]
    if outcome.status == "failed" and partition is not None and partition not in planned:
        return [Mark(key, partition, planned=True) for key in (node.key, *parts)]
    return []


def _log_error(step: Step, progress: Progress, partition: str | None, outcome: KeyOutcome) -> None:
    failed = len(progress.failed)
    if failed <= ERRORS_SHOWN:
        step.log.error(f"{progress.title} {partition or ''} failed\n{outcome.traceback}")
    elif failed == ERRORS_SHOWN + 1:
        step.log.error("More keys fail; their errors are listed at the end and in the jobs table.")
