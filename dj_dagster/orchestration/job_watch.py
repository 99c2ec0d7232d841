"""Which keys the job queues hold, and have let go of: cleared errors, and keys given back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dj_dagster.errors import MissingTableError
from dj_dagster.model.names import TableName
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.node_keys import own_table, present_among
from dj_dagster.orchestration.pauses import Pause
from dj_dagster.orchestration.regions import EVERYTHING, Region
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.database.connection import Connection
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.job_rows import queue_name
from dj_dagster.workflow.jobs import JobQueue

HELD = ("error", "ignore", "reserved")

Row = tuple[Any, ...]

Errors = Mapping[str, Sequence[Row]]
"""The failed jobs of a table, by partition."""


class JobWatch:
    """Remembers which keys were held by the queues of some tables."""

    def __init__(self, graph: TableGraph) -> None:
        self._nodes = {queue_name(node.name): node for node in graph.populated}
        self._entered = {queue: graph.entered_above(node) for queue, node in self._nodes.items()}
        # The status of each job, and when it came to that.
        self._jobs: dict[TableName, dict[Row, tuple[str, Any]]] = {}
        self._errors: dict[TableName, Errors] = {}
        self._pauses: dict[TableName, Pause] = defaultdict(Pause)
        self._incomplete: set[TableName] = set()

    def __contains__(self, name: TableName) -> bool:
        return name in self._nodes

    def node(self, name: TableName) -> TableNode:
        """Return the table whose queue has a name."""
        return self._nodes[name]

    def seen(self, name: TableName) -> bool:
        """Whether a queue was looked at since all was to be looked at anew."""
        return name in self._jobs

    def errors(self, node: TableNode) -> Errors:
        """Return the failed jobs of a table as they were when its queue was looked at."""
        return self._errors.get(queue_name(node.name), {})

    def complete(self, name: TableName) -> bool:
        """Whether the last look at a queue has left nothing to a later one."""
        return name not in self._incomplete

    def failing_below(self, name: TableName) -> list[TableName]:
        """Return the queues with failed jobs whose keys come, in part, from an entered table."""
        return [
            queue
            for queue, entered in self._entered.items()
            if self._errors.get(queue) and any(node.name == name for node in entered)
        ]

    def look(self, name: TableName) -> tuple[Region, set[str]]:
        """Look at a queue, and end its jobs of keys that are made, and of keys taken back.

        The first are left behind where a worker was killed, or a key was made without the queue.
        A key that people take back and enter again is a new one, which has not failed.

        Returns
        -------
        tuple
            Where keys are free that the queue held before, and the partitions in which keys have
            failed, or have no error any more.
        """
        node, before = self._nodes[name], self._jobs.get(name, {})
        queue, pause, began = JobQueue(node.table), self._pauses[name], time.monotonic()
        own = own_table(node) is not None
        clean = own and pause.over
        if clean:
            queue.end_made()
        # DataJoint declares the queue of a table of its own when that is first filled.
        there = own or queue.connection.catalog.find(name) is not None
        jobs = self._jobs[name] = _held(queue) if there else {}
        if clean:
            for row in self._taken_back(name, queue, _failed(jobs)):
                del jobs[row]
            pause.after(began, len(jobs))
        if clean or not own:
            self._incomplete.discard(name)
        else:
            self._incomplete.add(name)
        failed, failed_before = _failed(jobs), _failed(before)
        self._errors[name] = _by_partition(node.grain, queue, failed)
        # The time tells a key that has failed again.
        turned = {row for row, _ in failed.items() ^ failed_before.items()}
        freed = (row for row in before if row not in jobs)
        return _region(queue, freed) if own else EVERYTHING, {
            *_by_partition(node.grain, queue, turned)
        }

    def free_dead(self, connection: Connection) -> Iterator[tuple[TableNode, Region]]:
        """Have the keys made again whose worker died; yield where they are."""
        for name, jobs in self._jobs.items():
            node = self._nodes[name]
            reserved = any(status == "reserved" for status, _ in jobs.values())
            if own_table(node) is not None and node.table.connection == connection and reserved:
                # The look at a queue that is gone says so, under its own name.
                with suppress(MissingTableError):
                    queue = JobQueue(node.table)
                    yield node, _region(queue, queue.free_lost())

    def _taken_back(
        self, name: TableName, queue: JobQueue, failed: Collection[Row]
    ) -> Collection[Row]:
        """End the failed jobs of keys that people have taken back, and return them."""
        gone = queue.vanished() if failed and self._entered[name] else []
        found: dict[Row, None] = {}
        for node in self._entered[name] if gone else ():
            rows = _by_partition(node.grain, queue, gone)
            for partition in rows.keys() - present_among(node, list(rows)):
                found.update(dict.fromkeys(row for row in rows[partition] if row in failed))
        if found:
            queue.rows.delete(found, ("error",))
        return found

    def forget(self) -> None:
        """Look at the queues as if for the first time."""
        self._jobs.clear()


def _region(queue: JobQueue, rows: Iterable[tuple[Any, ...]]) -> Region:
    names = queue.rows.key
    return Region(keys=tuple(dict(zip(names, row, strict=True)) for row in rows))


def _held(queue: JobQueue) -> dict[Row, tuple[str, Any]]:
    rows = queue.rows
    names = [*rows.key, "status", "completed_time"]
    found = fetch.rows(rows.connection, rows.node(*HELD), names)
    return {tuple(row[:-2]): (str(row[-2]), row[-1]) for row in found}


def _failed(jobs: Mapping[Row, tuple[str, Any]]) -> dict[Row, tuple[str, Any]]:
    return {row: job for row, job in jobs.items() if job[0] == "error"}


def _by_partition(grain: Grain | None, queue: JobQueue, rows: Collection[Row]) -> Errors:
    """Return rows of a queue by partition, where that is told by the queue's key."""
    found: dict[str, list[Row]] = {}
    names = queue.rows.key if rows else []
    if grain is not None and set(grain.names) <= set(names):
        for row in rows:
            partition = grain.encode(dict(zip(names, row, strict=True)))
            found.setdefault(partition, []).append(row)
    return found
