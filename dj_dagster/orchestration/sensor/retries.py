"""Retries of failed keys, as far as the table's policy covers their errors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dagster import AssetKey, DagsterEventType, DagsterInstance, EventRecordsFilter

from dj_dagster.orchestration._dagster import RUNLESS_RUN_ID
from dj_dagster.orchestration.sensor.limits import Evaluation
from dj_dagster.orchestration.sensor.sensor_settings import NO_RETRIES, RetryPolicy
from dj_dagster.orchestration.tables.keys import Key, own_table
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.relational.fetching import fetch
from dj_dagster.workflow.jobs import JobQueue

LOOKED_AT = 1000
"""Errors of one table that are read together, at most."""


class Retries:
    """Failed keys that are retried automatically, and tables whose errors are to be read."""

    def __init__(self) -> None:
        self._unread: dict[AssetKey, TableNode] = {}
        self._waiting: dict[AssetKey, tuple[TableNode, _Waiting]] = {}

    def note(self, node: TableNode) -> None:
        """Note that the errors of a table may have changed."""
        self._unread[node.key] = node

    def free(self, tick: Evaluation) -> list[tuple[TableNode, list[Key]]]:
        """Make due keys pending again, and return them by table."""
        due = {key: node for key, (node, waiting) in self._waiting.items() if waiting.is_due}
        found = [
            (node, tick.attempt(node, self._free, node, tick))
            for node in {**self._unread, **due}.values()
        ]
        return [(node, keys) for node, keys in found if keys]

    def _free(self, node: TableNode, tick: Evaluation) -> list[Key]:
        _, waiting = self._waiting.setdefault(node.key, (node, _Waiting()))
        if node.key in self._unread:
            policy = tick.settings.of(node).retries or NO_RETRIES
            waiting.read(tick.instance, node, policy)
            del self._unread[node.key]
        return waiting.free(node)


@dataclass
class _Waiting:
    """The failed keys of one table that wait for a retry, each with the time when it is due.

    Attributes
    ----------
    due
        The times, by `time.monotonic`.
    """

    due: dict[tuple[Any, ...], float] = field(default_factory=dict[tuple[Any, ...], float])

    @property
    def is_due(self) -> bool:
        """Whether a key is due."""
        return any(at <= time.monotonic() for at in self.due.values())

    def read(self, instance: DagsterInstance, node: TableNode, policy: RetryPolicy) -> None:
        """Read the errors of a table from its job queue."""
        table = own_table(node)
        self.due = {}
        if table is None or policy.attempts < 2:
            return
        rows = JobQueue(table).rows
        names = [*rows.key, "error_message", "completed_time"]
        errors = fetch.rows(rows.connection, rows.node("error"), names)
        found = {row[:-2]: row[-1] for row in errors if policy.covers(row[-2])}
        found = dict(list(found.items())[:LOOKED_AT])
        if not found:
            return
        now, clock = rows.now(), time.monotonic()
        keys = [dict(zip(rows.key, row, strict=True)) for row in found]
        named = node.partitions_of(keys) or [None] * len(keys)
        partitions = dict(zip(found, named, strict=True))
        failures = failures_of(instance, node.key, list(partitions.values()))
        for row, ended in found.items():
            count = max(1, failures.get(partitions[row], 1))
            if count < policy.attempts:
                self.due[row] = clock + policy.wait(count) - _age(now, ended)

    def free(self, node: TableNode) -> list[Key]:
        """Make due keys pending again, and return them."""
        now = time.monotonic()
        due = [row for row, at in self.due.items() if at <= now]
        table = own_table(node)
        if not due or table is None:
            return []
        rows = JobQueue(table).rows
        rows.delete(due, ("error",))
        for row in due:
            del self.due[row]
        return [dict(zip(rows.key, row, strict=True)) for row in due]


def failures_of(
    instance: DagsterInstance, key: AssetKey, partitions: Sequence[str | None]
) -> Mapping[str | None, int]:
    """Return the numbers of failures of partitions since they were last made, by the event log."""
    named = [partition for partition in partitions if partition is not None]
    last = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, set(named)
    )
    records = instance.get_event_records(
        EventRecordsFilter(
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=key, asset_partitions=named
        )
    )
    counts: dict[str | None, int] = {}
    for record in records:
        partition = record.event_log_entry.get_dagster_event().partition
        if record.run_id == RUNLESS_RUN_ID:
            # This plan takes an earlier one back.
            continue
        if record.storage_id > last.get(partition or "", 0):
            counts[partition] = counts.get(partition, 0) + 1
    return counts


def _age(now: datetime, ended: datetime | None) -> float:
    return (now - ended).total_seconds() if ended is not None else 0.0
