"""How far a step has come with its keys, and what it shows of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from dagster import MetadataValue

from dj_dagster.orchestration.events import observe
from dj_dagster.orchestration.step import Step
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.fetching.preview import markdown_preview
from dj_dagster.workflow.populate import KeyOutcome

SECONDS_BETWEEN_EVENTS = 30.0
"""How often a step's progress goes into the event log, in seconds."""

PREVIEWS = 5
"""Keys of a step whose first rows are shown with their marks."""

PREVIEW_ROWS = 3


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
        rows: Any = table & outcome.key
        text = markdown_preview(rows.connection, rows.node, PREVIEW_ROWS)
        return {"preview": MetadataValue.md(text)}
