"""Which keys the job queues have let go of: their error was cleared, or they were given back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from dj_dagster.errors import MissingTableError
from dj_dagster.model.table_name import TableName
from dj_dagster.orchestration.node_keys import own_table
from dj_dagster.orchestration.pauses import Pause
from dj_dagster.orchestration.regions import EVERYTHING, Region
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.relational.database.connection import Connection
from dj_dagster.workflow.job_table import queue_name
from dj_dagster.workflow.jobs import JobQueue

HELD = ("error", "ignore", "reserved")


class JobWatch:
    """Remembers which keys were held by the queues of some tables."""

    def __init__(self, nodes: Iterable[TableNode]) -> None:
        self._nodes = {queue_name(node.name): node for node in nodes}
        self._jobs: dict[TableName, dict[tuple[Any, ...], str]] = {}
        self._pauses: dict[TableName, Pause] = defaultdict(Pause)

    def __contains__(self, name: TableName) -> bool:
        return name in self._nodes

    def node(self, name: TableName) -> TableNode:
        """Return the table whose queue has a name."""
        return self._nodes[name]

    def freed(self, name: TableName) -> Region:
        """Return where keys are free that a queue held before, and end jobs of keys that are made.

        These are left behind where a worker was killed, or a key was made without the queue.
        """
        node = self._nodes[name]
        if own_table(node) is None:
            return EVERYTHING
        queue, pause, began = JobQueue(node.table), self._pauses[name], time.monotonic()
        if pause.over:
            queue.end_made()
            pause.after(began)
        names = [*queue.rows.key, "status"]
        jobs = {
            tuple(job[n] for n in names[:-1]): str(job["status"])
            for job in (queue & [{"status": status} for status in HELD]).to_dicts()
        }
        before = self._jobs.get(name, {})
        self._jobs[name] = jobs
        return _region(queue, (row for row in before if row not in jobs))

    def free_dead(self, connection: Connection) -> Iterator[tuple[TableNode, Region]]:
        """Have the keys made again whose worker died; yield where they are."""
        for name, jobs in self._jobs.items():
            node = self._nodes[name]
            if node.table.connection == connection and "reserved" in jobs.values():
                # The look at a queue that is gone says so, under its own name.
                with suppress(MissingTableError):
                    queue = JobQueue(node.table)
                    yield node, _region(queue, queue.free_lost())

    def forget(self) -> None:
        """Look at the queues as if for the first time."""
        self._jobs.clear()


def _region(queue: JobQueue, rows: Iterable[tuple[Any, ...]]) -> Region:
    names = queue.rows.key
    return Region(keys=tuple(dict(zip(names, row, strict=True)) for row in rows))
