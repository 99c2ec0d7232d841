"""How far a step has come with its keys, and what it shows of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dagster import MetadataValue

from dj_dagster.errors import DataJointError
from dj_dagster.orchestration.events import Mark, observe
from dj_dagster.orchestration.step import Step
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.fetching.preview import first_rows, markdown_table, plain_values
from dj_dagster.workflow.populate import Key, KeyOutcome

SECONDS_BETWEEN_EVENTS = 30.0
"""How often a step's progress goes into the event log, in seconds."""

PICTURED = 5
"""Keys of a step whose larger values are read, to be pictured with their marks."""

PREVIEW_ROWS = 3

LINE = 200
"""Characters of the line that has a key's values, at most."""


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
            self.failed[partition] = outcome.message

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.counts.items()))
        return f"{self.title}: {counts or 'nothing to make'}"


class Shown:
    """What a step shows of its work beside the marks: progress, and the first rows of each key."""

    def __init__(self, step: Step, node: TableNode, progress: Progress) -> None:
        self._step, self._node, self._progress = step, node, progress
        self._began = self._told = time.monotonic()
        self._pictured = 0
        self._made: dict[str | None, Key] = {}

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

    def made(self, partition: str | None, key: Key) -> None:
        """Note a key whose rows are to be shown."""
        self._made[partition] = key

    def with_rows(self, marks: Sequence[Mark]) -> list[Mark]:
        """Return marks, those of keys made since the last time with the first rows of each."""
        made, self._made = self._made, {}
        if not made:
            return list(marks)
        pictured = dict(list(made.items())[: max(0, PICTURED - self._pictured)])
        self._pictured += len(pictured)
        rest = {partition: key for partition, key in made.items() if partition not in pictured}
        try:
            found = {**self._rows(pictured, large=True), **self._rows(rest, large=False)}
        except DataJointError as error:
            # The keys are made, and are to be marked in any case.
            self._step.log.warning(f"{self._node.title}: the rows cannot be shown: {error}")
            return list(marks)
        return [
            replace(mark, metadata={**(mark.metadata or {}), **found[mark.partition]})
            if mark.key == self._node.key and not mark.kind and mark.partition in found
            else mark
            for mark in marks
        ]

    def _rows(
        self, keys: Mapping[str | None, Key], *, large: bool
    ) -> dict[str | None, dict[str, Any]]:
        """Return the metadata that shows the first rows of some keys, by partition."""
        if not keys:
            return {}
        table: Any = self._node.table
        rows: Any = table & list(keys.values())
        by, heading = list(next(iter(keys.values()))), rows.heading
        most = PREVIEW_ROWS * len(keys)
        found = first_rows(rows.connection, rows.node, by, PREVIEW_ROWS, most, large=large)
        shown: dict[str | None, dict[str, Any]] = {}
        for partition, key in keys.items():
            if first := found.get(tuple(key.values())):
                text = markdown_table(heading.names, first)
                shown[partition] = {"preview": MetadataValue.md(text)}
                # Markdown is behind a click in the UI, a line of text is not.
                if line := plain_values(heading, first[0], LINE):
                    shown[partition]["values"] = MetadataValue.text(line)
        return shown
