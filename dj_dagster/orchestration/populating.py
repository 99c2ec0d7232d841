"""What a populate run does inside a step: make keys, mark each as it finishes, fail at the end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    DagsterInstance,
    DagsterLogManager,
    Failure,
    MetadataValue,
    OpExecutionContext,
)

from dj_dagster.orchestration.events import Mark, Origin, write_marks
from dj_dagster.orchestration.table_graph import TableNode
from dj_dagster.workflow.populate import KeyOutcome, populate_keys

MARKS_AT_ONCE = 1000
"""Marks that are collected, at most, before they are written."""

SECONDS_BETWEEN_WRITES = 2.0
"""How long a finished key waits for its mark, at most, in seconds."""

ERRORS_SHOWN = 20
"""Failing keys whose traceback goes into the run's log; all are in the table's jobs."""

ERRORS_LISTED = 500
"""Failing keys that the failure lists by name, at most."""


@dataclass(frozen=True)
class Step:
    """The Dagster step that makes keys: where its marks and messages go."""

    instance: DagsterInstance
    log: DagsterLogManager
    origin: Origin

    @classmethod
    def of(cls, context: AssetExecutionContext | OpExecutionContext) -> Step:
        """Return the step that a context is for."""
        step_key = context.get_step_execution_context().step.key
        origin = Origin(context.run.run_id, context.job_name, step_key)
        return cls(context.instance, context.log, origin)


@dataclass
class Progress:
    """What became of the keys of one table.

    Attributes
    ----------
    counts
        Number of keys by status, see `KeyOutcome`.
    failed
        ``{partition: error text}`` of the keys whose `make` failed.
    """

    title: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    failed: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, partition: str, outcome: KeyOutcome) -> None:
        """Count a key."""
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        if outcome.error is not None:
            self.failed[partition] = f"{type(outcome.error).__name__}: {outcome.error}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        return f"{self.title}: {counts or 'nothing to make'}"


class Marks:
    """Collects the marks of a step and writes them in batches, the first ones soon."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._waiting: list[Mark] = []
        self._written = time.monotonic()

    def add(self, marks: Iterable[Mark]) -> bool:
        """Take marks; return whether they, and those waiting, have been written now."""
        self._waiting.extend(marks)
        waited = time.monotonic() - self._written
        due = len(self._waiting) >= MARKS_AT_ONCE or waited >= SECONDS_BETWEEN_WRITES
        if due:
            self.write()
        return due

    def write(self) -> None:
        """Write all that wait."""
        waiting, self._waiting = self._waiting, []
        write_marks(self._step.instance, waiting, self._step.origin)
        self._written = time.monotonic()


def populate_table(
    step: Step,
    node: TableNode,
    parts: Collection[AssetKey],
    keys: Iterable[dict[str, Any]] | None,
    *,
    planned: Collection[str] = (),
    retry_errors: bool,
) -> Progress:
    """Make the keys that are pending, and mark each in the event log when it is in the table.

    Parameters
    ----------
    parts
        Asset keys of the table's parts, marked with it.
    keys
        Keys of the table's grain; those that have their rows already are left as they are. None
        for all that are pending.
    planned
        Partitions that Dagster shows as failed if the run fails, unless they are marked in it:
        the finished ones among them are marked again.
    retry_errors
        Whether keys that failed before are tried again.

    Raises
    ------
    DataJointError
        When the database cannot be used at all; a failing `make` is no reason to raise.
    """
    progress = Progress(node.title)
    marks = Marks(step)
    withdrawn: list[Mark] = []
    try:
        outcomes = populate_keys(
            node.maker, keys, retry_errors=retry_errors, reserve=node.reservable
        )
        for outcome in outcomes:
            partition = node.grain.encode(outcome.key) if node.grain else None
            progress.add(partition or node.title, outcome)
            if outcome.error is not None:
                _log_error(step, progress, partition, outcome)
            if outcome.status == "missing" and partition in planned:
                withdrawn += [Mark(key, partition, planned=True) for key in (node.key, *parts)]
            if marks.add(_marks(node, parts, partition, outcome, planned)):
                step.log.info(str(progress))
    finally:
        marks.write()
        # Dagster would show these as failed too if the run fails, although nothing was tried for
        # them: a later plan of no run takes its plan back.
        write_marks(step.instance, withdrawn)
    step.log.info(str(progress))
    return progress


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
    first = next(iter(errors.items()))
    raise Failure(
        description=f"{len(errors)} keys failed, the first: {': '.join(first)}",
        metadata={
            "failed": len(errors),
            "failed_keys": MetadataValue.json(dict(list(errors.items())[:ERRORS_LISTED])),
            "progress": "; ".join(map(str, all_progress)),
        },
        allow_retries=False,
    )


def _marks(
    node: TableNode,
    parts: Collection[AssetKey],
    partition: str | None,
    outcome: KeyOutcome,
    planned: Collection[str],
) -> list[Mark]:
    if outcome.status == "made":
        metadata = {
            "rows": outcome.rows,
            "bytes": outcome.bytes,
            "seconds_make": round(outcome.seconds, 6),
        }
        return [Mark(node.key, partition, metadata), *(Mark(part, partition) for part in parts)]
    if outcome.status == "present" and partition in planned:
        return [Mark(key, partition) for key in (node.key, *parts)]
    if outcome.status == "failed" and partition is not None and partition not in planned:
        return [Mark(key, partition, planned=True) for key in (node.key, *parts)]
    return []


def _log_error(step: Step, progress: Progress, partition: str | None, outcome: KeyOutcome) -> None:
    failed = len(progress.failed)
    if failed <= ERRORS_SHOWN:
        step.log.error(f"{progress.title} {partition or ''} failed\n{outcome.traceback}")
    elif failed == ERRORS_SHOWN + 1:
        step.log.error("More keys fail; their errors are listed at the end and in the jobs table.")
