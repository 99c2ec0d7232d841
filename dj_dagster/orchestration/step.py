"""The Dagster step that work is done in: its log, and its marks, written many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dagster import (
    AssetExecutionContext,
    DagsterInstance,
    DagsterLogManager,
    OpExecutionContext,
)
from dagster._core.storage.tags import AUTO_MATERIALIZE_TAG, SENSOR_NAME_TAG

from dj_dagster.orchestration.attempts import BATCH_TAG, FAILED_TAG
from dj_dagster.orchestration.events import Mark, Origin, write_marks
from dj_dagster.orchestration.provenance import Provenance
from dj_dagster.orchestration.run_processes import note_process

MARKS_AT_ONCE = 1000
"""Marks that are collected, at most, before they are written."""

SECONDS_BETWEEN_WRITES = 2.0
"""How long a finished key waits for its mark, at most, in seconds."""

AUTOMATIC = {BATCH_TAG, SENSOR_NAME_TAG, AUTO_MATERIALIZE_TAG}
"""Tags of runs that a sensor has started."""


@dataclass(frozen=True)
class Step:
    """The Dagster step that makes keys: where its marks and messages go.

    Attributes
    ----------
    again
        Whether its run is another one executed again: what failed in that is to be tried again,
        although the config, which is the other's, may say no.
    by_person
        Whether a person, or a schedule or program of theirs, started it, in contrast to a sensor.
    """

    instance: DagsterInstance
    log: DagsterLogManager
    origin: Origin
    again: bool = False
    by_person: bool = False

    @classmethod
    def of(cls, context: AssetExecutionContext | OpExecutionContext) -> Step:
        """Return the step that a context is for."""
        note_process(context.instance, context.run)
        step_key = context.get_step_execution_context().step.key
        origin = Origin(context.run.run_id, context.job_name, step_key)
        again = context.run.parent_run_id is not None
        by_person = not AUTOMATIC.intersection(context.run.tags)
        return cls(context.instance, context.log, origin, again, by_person)

    def tell_failed(self, keys: int) -> None:
        """Add to the number of failed keys in the tags of the run, which other steps have too."""
        run = self.instance.get_run_by_id(self.origin.run_id)
        before = int(run.tags.get(FAILED_TAG, "0")) if run is not None else 0
        self.instance.add_run_tags(self.origin.run_id, {FAILED_TAG: str(before + keys)})


class Marks:
    """Collects the marks of a step and writes them in batches, the first ones soon.

    Parameters
    ----------
    completed
        Gives the marks of a batch what is found out for all of them at once.
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
        """Take marks; return whether they, and those waiting, have been written now."""
        self._waiting.extend(marks)
        waited = time.monotonic() - self._written
        due = len(self._waiting) >= MARKS_AT_ONCE or waited >= SECONDS_BETWEEN_WRITES
        if due:
            self.write()
        return due

    def write(self) -> None:
        """Write all that wait."""
        waiting, self._waiting = self._completed(self._waiting), []
        tagged = self._provenance.tagged(waiting) if self._provenance else waiting
        write_marks(self._step.instance, tagged, self._step.origin)
        self._written = time.monotonic()
