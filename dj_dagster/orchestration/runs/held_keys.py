"""Chosen keys that jobs keep from being made: put off, to be ignored, or failed before.

A person who materialises a key wants it now, so that a job which was put off becomes due. What is
to be ignored stays so until its job is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from dj_dagster.model.heading import Key, Values
from dj_dagster.orchestration.tables.partitions import own_table
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.algebra.nodes import AnyOf, Condition, Equals, In
from dj_dagster.relational.algebra.operators import restrict
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.job_rows import LATER
from dj_dagster.workflow.jobs import JobQueue

TOGETHER = 1000
"""Keys whose jobs are looked up together."""

IGNORED = "its job is to be ignored: delete it from the table's jobs to have the key made"

_REASONS = {
    "ignore": IGNORED,
    "error": "it has failed before: choose retry_errors to have it tried again",
    "reserved": "another worker has its job",
}

HELD = AnyOf((In(("status",), tuple((status,) for status in _REASONS)), LATER))


def bring_forward(node: TableNode, keys: Sequence[Key]) -> None:
    """Make the jobs of some keys due that were put off; the keys may be those of partitions."""
    for queue, chunk in _chunks(node, keys):
        later = _jobs(queue, chunk, LATER)
        if later:
            # Times are rounded.
            now = queue.rows.now() - timedelta(seconds=1)
            queue.rows.update(later, ("pending",), {"scheduled_time": now})


def ignored(node: TableNode, keys: Sequence[Key]) -> set[Values]:
    """Return those of some keys of `make`, by their values, whose jobs are to be ignored."""
    return {
        tuple(dict(zip(queue.key, row, strict=True))[name] for name in node.populator.key_names)
        for queue, chunk in _chunks(node, keys)
        for row in _jobs(queue, chunk, Equals("status", "ignore"))
    }


def reasons(node: TableNode, keys: Sequence[Key]) -> dict[str, str]:
    """Return the reasons why jobs keep keys from being made, by partition."""
    found: dict[str, dict[str, None]] = {}
    for queue, chunk in _chunks(node, keys):
        query = restrict((queue & chunk).node, HELD)
        names = [*queue.key, "status", "scheduled_time"]
        for *row, status, scheduled in fetch.rows(queue.connection, query, names):
            key = dict(zip(queue.key, row, strict=True))
            later = f"its job is put off until {scheduled}, by the clock of the database"
            (partition,) = node.partitions_of([key])
            found.setdefault(partition, {})[_REASONS.get(status, later)] = None
    return {partition: "; ".join(each) for partition, each in found.items()}


def _chunks(node: TableNode, keys: Sequence[Key]) -> Iterator[tuple[JobQueue, list[Key]]]:
    table = own_table(node)
    if table is None or not keys or not node.reservable:
        return
    for start in range(0, len(keys), TOGETHER):
        yield JobQueue(table), list(keys[start : start + TOGETHER])


def _jobs(queue: JobQueue, keys: list[Key], condition: Condition) -> list[Values]:
    """Return the jobs of some keys for which a condition holds."""
    node = restrict((queue & keys).node, condition)
    return list(fetch.rows(queue.connection, node, queue.key))
