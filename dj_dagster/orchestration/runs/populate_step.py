"""The populate step of a run, which makes keys, marks and shows them, and fails if a key fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterLogManager,
    Failure,
    MetadataValue,
    OpExecutionContext,
)

from dj_dagster.errors import DataJointError, counted, named_text
from dj_dagster.model.heading import Key
from dj_dagster.orchestration._dagster import (
    AUTO_MATERIALIZE_TAG,
    BACKFILL_ID_TAG,
    SENSOR_NAME_TAG,
)
from dj_dagster.orchestration.runs.event_log import observe, write_marks
from dj_dagster.orchestration.runs.failures import failure_marks
from dj_dagster.orchestration.runs.held_keys import reasons
from dj_dagster.orchestration.runs.helping import has_helpers, with_helpers
from dj_dagster.orchestration.runs.marks import Mark, Origin
from dj_dagster.orchestration.runs.node_code import compare_code, versions_text
from dj_dagster.orchestration.runs.run_records import (
    BATCH_TAG,
    FAILED_TAG,
    UNQUEUED_TAG,
    note_process,
)
from dj_dagster.orchestration.runs.shown_marks import Provenance, repeated, unmarked
from dj_dagster.orchestration.runs.stale_marks import Aging
from dj_dagster.orchestration.runs.work import HERE, OnExisting, Work, made_again
from dj_dagster.orchestration.tables.partitions import own_table
from dj_dagster.orchestration.tables.table_graph import KeyMetadata, TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.fetching.preview import first_rows, markdown_table, plain_values
from dj_dagster.workflow.notes import NoteTaker, noted_run
from dj_dagster.workflow.populate import KeyOutcome

ERRORS_SHOWN = 20
"""Failing keys whose traceback goes into the run's log, at most; the table's jobs have them all."""

ERRORS_LISTED = 500
"""Failing keys that the failure lists by name, at most."""

ERRORS_NAMED = 20
"""Failing keys that the error of a step names in its text, at most; the others are counted."""

LONGEST_ERROR = 500
"""Characters of one key's error in that text, at most."""

PRESENT = "Its rows are there already, and current as far as is known: nothing was made."
"""The note on the page of a present key after a run that was to make it."""

UNTRIED = ("missing", "present", "left")
"""Statuses of keys that were neither made nor have failed."""

IDLE = ("missing", "reserved")
"""Statuses of keys that a job may have kept from being made."""

IDLE_NAMED = 1000
"""Such keys of a step that are looked up and get a note, at most."""

SKIP_EXISTING = OnExisting()


def populate_table(
    step: Step,
    graph: TableGraph,
    node: TableNode,
    keys: Iterable[Key] | None,
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
        Keys of the table's grain; None for all pending keys.
    planned
        Partitions that Dagster shows as failed if the run fails without marking them.
    retry_errors
        Whether keys that failed before are tried again.
    work
        Whether keys are made here or in other processes.
    existing
        The treatment of keys that have their rows already. Keys that are left as they are keep
        their marks; a run that a person started notes on their pages that they are there, or, in a
        backfill, repeats their marks.

    Raises
    ------
    DataJointError
        When the database cannot be used at all. A failing `make` does not raise.
    """
    if keys is not None:
        keys = list({tuple(key.values()): key for key in node.respelled(list(keys))}.values())
    parts = [part.key for part in graph.parts(node)]
    progress = Progress(node.title, total=None if keys is None else len(keys))
    shown = Shown(step, node, progress, graph.described.get(node.key))
    asked = "all keys" if keys is None else counted(len(keys), "key")
    step.log.info(f"{node.title}: {asked} to be made")
    aging = Aging(step.instance, graph, node)
    provenance = Provenance(step.instance, graph, node, step.origin.run_id)
    marks = Marks(step, provenance, shown.with_rows)
    run_id = step.origin.run_id
    notes = NoteTaker(node.table, node.populator.key_names, node.staleness.code, run_id)
    there, tried, withdrawn = list[str](), set[str | None](), list[Mark]()
    idle = list[Key]()
    outcomes = made_again(graph, aging, node, keys, existing, retry_errors=retry_errors, work=work)
    if step.has_helpers:
        outcomes = with_helpers(node, outcomes, work)
    try:
        with noted_run(run_id):
            for outcome in outcomes:
                partition = node.grain.encode(outcome.key) if node.grain else None
                progress.add(partition or node.title, outcome)
                if outcome.error is not None:
                    _log_error(step, progress, partition, outcome)
                if outcome.status == "present" and partition is not None:
                    there.append(partition)
                if outcome.status in IDLE and len(idle) < IDLE_NAMED:
                    idle.append(outcome.key)
                if outcome.status not in UNTRIED:
                    # Other keys of a partition may be left after that.
                    tried.add(partition)
                elif partition in planned and partition not in tried:
                    withdrawn += [Mark(key, partition, planned=True) for key in (node.key, *parts)]
                if own_table(node) is None and outcome.status == "made":
                    # DataJoint has made the key, and does not take notes.
                    notes.look([outcome.key])
                    notes.note(outcome.key)
                    notes.write_if_due()
                if marks.add(_marks(step, node, parts, partition, outcome, planned, shown)):
                    shown.tell()
    finally:
        notes.close()
        # If the run fails, Dagster would show these as failed too, although they were not tried.
        # A later plan without a run takes their plan back; like all plans it comes before marks.
        write_marks(step.instance, withdrawn)
        marks.write()
    if step.by_person and node.grain is not None:
        _note_idle(step, node, idle)
    _mark_unmarked(step, graph, node, aging, there)
    if step.in_backfill:
        _repeat_marks(step, graph, node, there)
    if progress.failed:
        step.tell_failed(len(progress.failed), queued=node.reservable)
    step.log.info(str(progress))
    return progress


def _note_idle(step: Step, node: TableNode, keys: Sequence[Key]) -> None:
    """Note on the pages of keys, and in the log, why jobs have kept them from being made."""
    found = reasons(node, keys)
    notes = [Mark(node.key, each, note=f"Not made: {why}.") for each, why in found.items()]
    write_marks(step.instance, notes, step.origin)
    for partition, why in list(found.items())[:ERRORS_NAMED]:
        step.log.warning(f"{node.title} {partition} is not made: {why}.")


def _mark_unmarked(
    step: Step, graph: TableGraph, node: TableNode, aging: Aging, partitions: Sequence[str]
) -> None:
    """Mark the rows that were there already and that are without a mark in Dagster."""
    for each in (node, *graph.parts(node)):
        lacking = unmarked(step.instance, each, list(partitions))
        write_marks(step.instance, aging.marks(each, lacking))


def _repeat_marks(
    step: Step, graph: TableGraph, node: TableNode, partitions: Sequence[str]
) -> None:
    """Mark present keys for a backfill, which would otherwise end as failed because of them."""
    for each in (node, *graph.parts(node)):
        again = repeated(step.instance, each, partitions)
        write_marks(step.instance, again.values(), step.origin)


def raise_if_failed(*all_progress: Progress) -> None:
    """Fail the step if keys have failed; the failure names them with their errors.

    Raises
    ------
    dagster.Failure
        If keys have failed. Retries are off, because Dagster's would repeat the finished keys too.
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
        description=f"{counted(len(errors), 'key')} failed: {'; '.join(named)}",
        metadata={
            "failed": len(errors),
            "failed_keys": MetadataValue.json(dict(list(errors.items())[:ERRORS_LISTED])),
            "failed_keys_left_out": max(0, len(errors) - ERRORS_LISTED),
            "progress": "; ".join(map(str, all_progress)),
        },
        allow_retries=False,
    )


def _shortened(error: str) -> str:
    """Return the text of an error, cut to `LONGEST_ERROR` characters."""
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
    match outcome.status:
        case "made":
            metadata = {
                "rows": outcome.rows,
                **({"bytes": outcome.bytes} if outcome.bytes else {}),
                "seconds_make": round(outcome.seconds, 6),
            }
            shown.made(partition, outcome.key)
            return [Mark(node.key, partition, metadata), *(Mark(part, partition) for part in parts)]
        case "present":
            is_noted = step.by_person and not step.in_backfill
            return [Mark(node.key, partition, note=PRESENT)] if is_noted else []
        case "left":
            return [Mark(node.key, partition, note=f"Not made again. {outcome.error}")]
        case "failed":
            plan = partition is not None and partition not in planned
            keys, text = (node.key, *parts), outcome.message
            return failure_marks(keys, partition, text, outcome.traceback, plan=plan)
        case "missing" | "reserved":
            return []
        case _:
            assert_never(outcome.status)


def _log_error(step: Step, progress: Progress, partition: str | None, outcome: KeyOutcome) -> None:
    failed = len(progress.failed)
    if failed <= ERRORS_SHOWN:
        step.log.error(f"{progress.title} {partition or ''} failed\n{outcome.traceback}")
    elif failed == ERRORS_SHOWN + 1:
        step.log.error("More keys fail; their errors are listed at the end and in the jobs table.")


MARKS_AT_ONCE = 1000
"""Marks that are collected before they are written, at most."""

SECONDS_BETWEEN_WRITES = 2.0
"""Seconds that a finished key waits for its mark, at most."""

AUTOMATIC = {BATCH_TAG, SENSOR_NAME_TAG, AUTO_MATERIALIZE_TAG}
"""Tags that only runs started by a sensor have."""


@dataclass(frozen=True)
class Step:
    """The Dagster step that makes keys, which gets their marks and messages.

    Attributes
    ----------
    again
        Whether its run repeats another run. The failed keys of that run are then tried again, even
        if the config, which is a copy of the other run's, does not ask for it.
    by_person
        Whether a person, or a schedule or program of theirs, started the run, and not a sensor.
    in_backfill
        Whether it belongs to a backfill. Dagster counts each of a backfill's partitions as failed
        that its runs do not materialise.
    has_helpers
        Whether other processes make keys of its run too, for which the step waits.
    """

    instance: DagsterInstance
    log: DagsterLogManager
    origin: Origin
    again: bool = False
    by_person: bool = False
    in_backfill: bool = False
    has_helpers: bool = False

    @classmethod
    def of(
        cls,
        context: AssetExecutionContext | OpExecutionContext,
        graph: TableGraph,
        nodes: Sequence[TableNode],
    ) -> Step:
        """Return the step of a context that makes keys of some tables.

        Raises
        ------
        dagster.Failure
            If the process has other code than planned, and the settings refuse it.
        """
        note_process(context.instance, context.run, versions_text(graph.nodes))
        compare_code(context, graph, nodes)
        step_key = context.get_step_execution_context().step.key
        origin = Origin(context.run.run_id, context.job_name, step_key)
        again = context.run.parent_run_id is not None
        by_person = not AUTOMATIC.intersection(context.run.tags)
        in_backfill = BACKFILL_ID_TAG in context.run.tags
        helped = has_helpers(context.run)
        return cls(context.instance, context.log, origin, again, by_person, in_backfill, helped)

    def tell_failed(self, keys: int, *, queued: bool) -> None:
        """Add to the number of failed keys in the run's tags, which all its steps share.

        Parameters
        ----------
        queued
            Whether a job queue keeps the failures.
        """
        run = self.instance.get_run_by_id(self.origin.run_id)
        before = run.tags if run is not None else {}
        tags = [FAILED_TAG] if queued else [FAILED_TAG, UNQUEUED_TAG]
        told = {tag: str(int(before.get(tag, "0")) + keys) for tag in tags}
        self.instance.add_run_tags(self.origin.run_id, told)


class Marks:
    """The marks of a step, which are collected and written in batches.

    Parameters
    ----------
    completed
        A function that adds to all marks of a batch at once, before they are written.
    """

    def __init__(
        self,
        step: Step,
        provenance: Provenance | None = None,
        completed: Callable[[Sequence[Mark]], list[Mark]] = list,
    ) -> None:
        self._step = step
        self._provenance = provenance
        self._completed = completed
        self._waiting: list[Mark] = []
        self._written = time.monotonic()

    def add(self, marks: Iterable[Mark]) -> bool:
        """Add marks, and return whether all waiting marks have been written now."""
        self._waiting.extend(marks)
        waited = time.monotonic() - self._written
        due = len(self._waiting) >= MARKS_AT_ONCE or waited >= SECONDS_BETWEEN_WRITES
        if due:
            self.write()
        return due

    def write(self) -> None:
        """Write all waiting marks."""
        waiting, self._waiting = self._completed(self._waiting), []
        tagged = self._provenance.tagged(waiting) if self._provenance else waiting
        write_marks(self._step.instance, tagged, self._step.origin)
        self._written = time.monotonic()


SECONDS_BETWEEN_EVENTS = 30.0
"""Seconds between two records of a step's progress in the event log, at least."""

PICTURED = 5
"""Keys of a step whose larger values are read and shown with their marks, at most."""

PREVIEW_ROWS = 3

LINE = 200
"""Characters of the line with a key's values, at most."""


@dataclass
class Progress:
    """The outcomes of the keys of one table.

    Attributes
    ----------
    counts
        Number of keys by status, see `KeyOutcome`.
    failed
        ``{partition: error text}`` of the keys whose `make` failed.
    total
        The number of keys, None if not known.
    """

    title: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    total: int | None = None

    @property
    def done(self) -> int:
        """The number of keys with an outcome."""
        return sum(self.counts.values())

    def add(self, partition: str, outcome: KeyOutcome) -> None:
        """Count a key."""
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        if outcome.status == "failed" or (outcome.error and partition not in self.failed):
            self.failed[partition] = outcome.message

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        return f"{self.title}: {counts or 'nothing to make'}"


class Shown:
    """The display of a step's work beside the marks: progress, and the first rows of each key.

    Parameters
    ----------
    described
        A function of the user's that gives more metadata of a key, or None.
    """

    def __init__(
        self,
        step: Step,
        node: TableNode,
        progress: Progress,
        described: KeyMetadata | None = None,
    ) -> None:
        self._step, self._node, self._progress = step, node, progress
        self._described = described
        self._began = self._told = time.monotonic()
        self._pictured = 0
        self._made: dict[str | None, Key] = {}

    def tell(self) -> None:
        """Log the progress; every `SECONDS_BETWEEN_EVENTS` add it to the asset's own events."""
        self._step.log.info(str(self._progress))
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_EVENTS:
            return
        self._told = now
        done, total = self._progress.done, self._progress.total
        metadata: dict[str, object] = {"progress": str(self._progress), "done": done}
        if total:
            left = (now - self._began) / max(done, 1) * (total - done)
            metadata |= {"total": total, "seconds_left": round(left)}
        observe(self._step.instance, self._node.key, metadata, self._step.origin)

    def made(self, partition: str | None, key: Key) -> None:
        """Note a key whose rows are to be shown."""
        self._made[partition] = key

    def with_rows(self, marks: Sequence[Mark]) -> list[Mark]:
        """Return marks, with the first rows on those of keys made since the last call."""
        made, self._made = self._made, {}
        if not made:
            return list(marks)
        pictured = dict(list(made.items())[: max(0, PICTURED - self._pictured)])
        self._pictured += len(pictured)
        rest = {partition: key for partition, key in made.items() if partition not in pictured}
        found: dict[str | None, dict[str, object]] = {}
        try:
            found = {**self._rows(pictured, large=True), **self._rows(rest, large=False)}
        except DataJointError as error:
            # The keys are made, and must be marked in any case.
            self._step.log.warning(f"{self._node.title}: the rows cannot be shown: {error}")
        for partition, key in made.items():
            if more := self._more(partition, key):
                found[partition] = {**found.get(partition, {}), **more}
        return [
            replace(mark, metadata={**(mark.metadata or {}), **found[mark.partition]})
            if mark.key == self._node.key and not mark.kind and mark.partition in found
            else mark
            for mark in marks
        ]

    def _more(self, partition: str | None, key: Key) -> Mapping[str, object]:
        """Return the user's own metadata of a key that was made."""
        if self._described is None:
            return {}
        try:
            # Dagster checks the values here, so that a refused one does not cost a mark.
            return AssetMaterialization(self._node.key, metadata=self._described(key)).metadata
        except Exception as error:
            place = f"{self._node.title} {partition or ''}".strip()
            self._step.log.warning(f"{place} has no metadata of its own: {named_text(error)}")
            return {}

    def _rows(
        self, keys: Mapping[str | None, Key], *, large: bool
    ) -> dict[str | None, dict[str, object]]:
        """Return the metadata that shows the first rows of some keys, by partition."""
        if not keys:
            return {}
        rows = self._node.table & list(keys.values())
        by, heading = list(next(iter(keys.values()))), rows.heading
        most = PREVIEW_ROWS * len(keys)
        found = first_rows(rows.connection, rows.node, by, PREVIEW_ROWS, most, large=large)
        is_whole_key = set(heading.primary_key) <= set(by)
        shown: dict[str | None, dict[str, object]] = {}
        for partition, key in keys.items():
            if first := found.get(tuple(key.values())):
                # The UI shows a line of text at once, and Markdown only after a click.
                line, is_all = plain_values(heading, first[0], LINE)
                says_all = is_whole_key and is_all
                own: dict[str, object] = {}
                if line:
                    own["preview" if says_all else "values"] = MetadataValue.text(line)
                if not says_all:
                    own["preview"] = MetadataValue.md(markdown_table(heading.names, first))
                shown[partition] = own
        return shown
