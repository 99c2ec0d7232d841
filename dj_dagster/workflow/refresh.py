"""Bringing a job queue up to date with its table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from dj_dagster.relational.algebra.nodes import Node
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.job_rows import FREE, JobRows, Row
from dj_dagster.workflow.key_source import among, without
from dj_dagster.workflow.make import Makes
from dj_dagster.workflow.pending import rows_of, source, unmade_keys


class Refresh:
    """What `JobQueue.refresh` does, step by step.

    Rows are read before they are changed, so that nothing is locked that others read and write.

    Parameters
    ----------
    priority
        Of the jobs that become pending.
    """

    def __init__(self, table: Makes, jobs: JobRows, priority: int = 0) -> None:
        self._table = table
        self._jobs = jobs
        self._priority = priority

    def add(self, restrictions: Iterable[Any], delay: float) -> int:
        """Add the keys that are in neither table nor queue, due `delay` seconds from now."""
        keys = unmade_keys(self._table, *restrictions, held=self._jobs.node())
        rows = [tuple(key[name] for name in self._jobs.key) for key in keys]
        if rows:
            due = self._jobs.now() + timedelta(seconds=delay)
            self._jobs.add(rows, priority=self._priority, scheduled_time=due)
        return len(rows)

    def end_made(self, *, keep: bool) -> int:
        """End the pending and failed jobs whose keys are in the table."""
        waiting = ("pending", "error")
        rows = self._rows(among(self._jobs.node(*waiting), rows_of(self._table)))
        return self._jobs.end(rows, waiting, keep=keep) if rows else 0

    def add_finished_again(self, restrictions: Iterable[Any]) -> int:
        """Make finished jobs pending whose rows have been deleted."""
        done = without(self._jobs.node("success"), rows_of(self._table))
        keys = source(self._table, *restrictions)
        return self._free(self._rows(among(done, keys)), "success")

    def free_orphans(self, timeout: float) -> int:
        """Make reserved jobs pending that were claimed so many seconds ago."""
        before = self._jobs.now() - timedelta(seconds=timeout)
        names = [*self._jobs.key, "reserved_time"]
        reserved = fetch.rows(self._jobs.connection, self._jobs.node("reserved"), names)
        return self._free(
            [row[:-1] for row in reserved if (row[-1] or before) < before], "reserved"
        )

    def remove_vanished(self, timeout: float) -> int:
        """Remove jobs whose keys have left the key source.

        Those that ended go once their keys have left the table as well, all but ignored ones when
        they are older than `timeout` seconds, unless that is 0.
        """
        ended = "success", "error"
        removed = self._delete(self.vanished(*ended), *ended)
        if timeout <= 0:
            return removed
        keys = source(self._table)
        before = self._jobs.now() - timedelta(seconds=timeout)
        statuses = ("pending", "reserved", "success", "error")
        names = [*self._jobs.key, "created_time"]
        vanished = without(self._jobs.node(*statuses), keys)
        found = fetch.rows(self._jobs.connection, vanished, names)
        return removed + self._delete([row[:-1] for row in found if row[-1] < before], *statuses)

    def vanished(self, *statuses: str) -> list[Row]:
        """Return the jobs whose keys are neither in the key source nor in the table."""
        outside = without(self._jobs.node(*statuses), source(self._table))
        return self._rows(without(outside, rows_of(self._table)))

    def _rows(self, node: Node) -> list[Row]:
        return list(fetch.rows(self._jobs.connection, node, self._jobs.key))

    def _free(self, rows: list[Row], status: str) -> int:
        now = self._jobs.now()
        times = {"created_time": now, "scheduled_time": now}
        values = {**FREE, **times, "status": "pending", "priority": self._priority}
        return self._jobs.freed(rows, self._jobs.update(rows, (status,), values)) if rows else 0

    def _delete(self, rows: list[Row], *statuses: str) -> int:
        return self._jobs.delete(rows, statuses) if rows else 0
