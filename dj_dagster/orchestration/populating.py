"""What a populate run does inside a step: make keys, mark each as it finishes, fail at the end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    DagsterInstance,
    DagsterLogManager,
    Enum,
    EnumValue,
    Failure,
    Field,
    MetadataValue,
    OpExecutionContext,
)

from dj_dagster.model.heading import Attribute
from dj_dagster.model.types import Family
from dj_dagster.orchestration.events import Mark, Origin, observe, write_marks
from dj_dagster.orchestration.provenance import Provenance
from dj_dagster.orchestration.recompute import CHUNK, check_recompute, delete_existing
from dj_dagster.orchestration.requests import FAILED_TAG
from dj_dagster.orchestration.table_graph import TableNode
from dj_dagster.orchestration.work import HERE, Work, outcomes
from dj_dagster.workflow.populate import KeyOutcome

MARKS_AT_ONCE = 1000
"""Marks that are collected, at most, before they are written."""

SECONDS_BETWEEN_WRITES = 2.0
"""How long a finished key waits for its mark, at most, in seconds."""

SECONDS_BETWEEN_EVENTS = 30.0
"""How often a step's progress goes into the event log, in seconds."""

PREVIEWS = 5
"""Keys of a step whose first rows are shown with their marks."""

PREVIEW_ROWS = 3

ERRORS_SHOWN = 20
"""Failing keys whose traceback goes into the run's log; all are in the table's jobs."""

ERRORS_LISTED = 500
"""Failing keys that the failure lists by name, at most."""

ON_EXISTING = Field(
    Enum("OnExisting", [EnumValue("skip"), EnumValue("recompute")]),
    default_value="skip",
    description="What becomes of keys that are there already: recompute deletes their rows, with "
    "all that depends on them, and makes them again.",
)


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
    total
        How many keys there are, None where that is not known.
    """

    title: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    total: int | None = None

    @property
    def done(self) -> int:
        """How many keys have been dealt with."""
        return sum(self.counts.values())

    def add(self, partition: str, outcome: KeyOutcome) -> None:
        """Count a key."""
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        if outcome.error is not None:
            self.failed[partition] = f"{type(outcome.error).__name__}: {outcome.error}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        return f"{self.title}: {counts or 'nothing to make'}"


class Shown:
    """What a step shows of its work beside the marks: progress, and a preview of a few keys."""

    def __init__(self, step: Step, node: TableNode, progress: Progress) -> None:
        self._step, self._node, self._progress = step, node, progress
        self._began = self._told = time.monotonic()
        self._previews = 0

    def tell(self) -> None:
        """Log the progress; on long steps put it into the asset's own events now and then."""
        self._step.log.info(str(self._progress))
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_EVENTS:
            return
        self._told = now
        done, total = self._progress.done, self._progress.total
        metadata: dict[str, Any] = {"progress": str(self._progress), "done": done}
        if total:
            left = (now - self._began) / max(done, 1) * (total - done)
            metadata |= {"total": total, "seconds_left": round(left)}
        observe(self._step.instance, self._node.key, metadata, self._step.origin)

    def preview(self, outcome: KeyOutcome) -> dict[str, Any]:
        """Return metadata with the first rows of a key, for the first few keys of a step."""
        if self._previews >= PREVIEWS:
            return {}
        self._previews += 1
        table: Any = self._node.table
        names = [a.name for a in table.heading.attributes.values() if _is_short(a)]
        rows: Any = (table & outcome.key).proj(*names).to_dicts(limit=PREVIEW_ROWS)
        return {"preview": MetadataValue.md(_as_markdown(names, rows))}


def _is_short(attribute: Attribute) -> bool:
    long = (Family.CODEC, Family.BYTES, Family.JSON)
    return attribute.type is not None and attribute.type.family not in long


def _as_markdown(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [names, ["---"] * len(names)]
    lines += [[str(row[name])[:60].replace("|", "\\|") for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Marks:
    """Collects the marks of a step and writes them in batches, the first ones soon."""

    def __init__(self, step: Step, provenance: Provenance | None = None) -> None:
        self._step = step
        self._provenance = provenance
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
        tagged = self._provenance.tagged(waiting) if self._provenance else waiting
        write_marks(self._step.instance, tagged, self._step.origin)
        self._written = time.monotonic()


def populate_table(
    step: Step,
    node: TableNode,
    parts: Collection[AssetKey],
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
    progress = Progress(node.title, total=None if keys is None else len(keys))
    shown = Shown(step, node, progress)
    marks = Marks(step, provenance)
    withdrawn: list[Mark] = []
    try:
        made = _recomputed if recompute else outcomes
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
        failed = {FAILED_TAG: str(len(progress.failed))}
        step.instance.add_run_tags(step.origin.run_id, failed)
    step.log.info(str(progress))
    return progress


def _recomputed(
    node: TableNode, keys: list[dict[str, Any]] | None, *, retry_errors: bool, work: Work
) -> Iterator[KeyOutcome]:
    wanted = node.maker.keys() if keys is None else keys
    check_recompute(node, wanted)
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
