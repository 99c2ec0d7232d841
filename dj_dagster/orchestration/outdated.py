"""Which keys are stale, told as the check `current`.

Dagster shows a single partition as stale and never says so of an asset that has partitions. So the
sensor counts them once the code of a table has changed, or rows that it refers to, and reports the
check: the asset then has a warning in the graph and on its page, until its rows are made again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from dj_dagster.orchestration.aging import Aged, Aging, Row
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode
from dj_dagster.workflow.populate import Key

CURRENT = "current"
"""Name of the check."""

SECONDS = 1.0
"""How long a tick counts, about; the tables that are left have to wait for the next one."""

PAUSE = 5.0
"""Seconds after which stale tables are looked at again, at least."""

SHARE = 20
"""How much longer than counting took it is not done again."""

CHUNK = 10_000
"""Keys that are looked at together."""


@dataclass(frozen=True)
class Ages:
    """How many keys of a table are as they would be made now.

    Attributes
    ----------
    version
        Of `make` as it is now.
    current, stale
        Keys that it made, and keys that other code has made, or from rows that have changed since.
    changed
        Of the stale ones, those from such rows.
    unknown
        Keys of which it is not known: DataJoint itself has made them, or a worker that was killed.
    first
        A stale partition.
    """

    version: str
    current: int = 0
    stale: int = 0
    changed: int = 0
    unknown: int = 0
    first: str = ""

    @property
    def metadata(self) -> dict[str, int | float | str]:
        """What the check shows."""
        counts = {"stale": self.stale, "current": self.current, "unknown": self.unknown}
        changed = {"changed_inputs": self.changed} if self.changed else {}
        first = {"first_stale": self.first} if self.first else {}
        return {**counts, **changed, **first, "code_version": self.version}

    def __add__(self, found: Sequence[tuple[Key, Aged]]) -> Ages:
        """Count some more keys."""
        counts = Counter(aged.age for _, aged in found)
        return replace(
            self,
            current=self.current + counts["current"],
            stale=self.stale + counts["code"] + counts["inputs"],
            changed=self.changed + counts["inputs"],
            unknown=self.unknown + counts["unknown"],
        )


def ages(instance: DagsterInstance, graph: TableGraph, node: TableNode) -> Iterator[Ages]:
    """Count the keys of a table by their age, page by page: the last has them all."""
    counted = Ages(graph.versions.get(node.key) or "")
    yield counted
    aging = Aging(instance, graph, node)
    for keys in aging.pages():
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            found = aging.of_keys(chunk)
            counted += [(key, found[tuple(key.values())]) for key in chunk]
            if not counted.first and (stale := next(_stale(chunk, found), None)) is not None:
                first = node.grain.encode(stale) if node.grain else node.title
                counted = replace(counted, first=first)
            yield counted


def _stale(keys: Iterable[Key], ages: Mapping[Row, Aged]) -> Iterator[Key]:
    return (key for key in keys if ages[tuple(key.values())].stale)


class CodeWatch:
    """Reports which tables have stale rows.

    Parameters
    ----------
    nodes
        The tables, of those in the graph; the version of their code is known.
    """

    def __init__(self, graph: TableGraph, nodes: Iterable[TableNode]) -> None:
        self._graph = graph
        self._nodes = {node.key: node for node in nodes}
        self._begun = False
        self._due: set[AssetKey] = set()
        # The tables with stale rows, and the last mark that was there when they were counted.
        self._behind: dict[AssetKey, int | None] = {}
        self._counting: _Counting | None = None
        self._looks_again = 0.0

    def recount(self) -> None:
        """Count the tables with stale rows once more: some may have been deleted."""
        self._due.update(self._behind)

    def look_again(self, node: TableNode) -> None:
        """Count a table in which the age of rows has changed."""
        if node.key in self._nodes:
            self._due.add(node.key)

    def report(self, instance: DagsterInstance) -> None:
        """Count the tables whose code or rows have changed since they were reported; report them.

        What takes long is left to the next time.
        """
        began = time.monotonic()
        if not self._begun:
            # A table that make has not filled has nothing to report.
            self._due |= self._unreported(instance) & _last_marks(instance, self._nodes).keys()
            self._begun = True
        elif self._behind and began > self._looks_again:
            marks = _last_marks(instance, self._behind)
            self._due.update(key for key, mark in marks.items() if mark != self._behind[key])
        if not self._due:
            return
        failed: dict[AssetKey, Exception] = {}
        while self._due - failed.keys() and time.monotonic() < began + SECONDS:
            key = min(self._due - failed.keys(), key=lambda each: tuple(each.path))
            key = self._counting.key if self._counting is not None else key
            try:
                self._go_on(instance, key)
            except Exception as error:
                # Those that can be read are not to wait for one that cannot.
                failed[key] = error
        ended = time.monotonic()
        self._looks_again = ended + max(PAUSE, SHARE * (ended - began))
        for error in failed.values():
            raise error

    def _unreported(self, instance: DagsterInstance) -> set[AssetKey]:
        checks = [AssetCheckKey(key, CURRENT) for key in self._nodes]
        storage = instance.event_log_storage
        found = storage.get_latest_asset_check_execution_by_key(checks)
        reported = {check.asset_key for check in checks if self._is_so(found.get(check))}
        return set(self._nodes) - reported

    def _is_so(self, record: AssetCheckExecutionRecord | None) -> bool:
        """Whether the last word on a table is that all rows are of the code as it is now."""
        if record is None or record.status is not AssetCheckExecutionRecordStatus.SUCCEEDED:
            return False
        evaluation = record.evaluation
        version = evaluation.metadata.get("code_version") if evaluation else None
        return version is not None and version.value == self._version(record.key.asset_key)

    def _version(self, key: AssetKey) -> str:
        return self._graph.versions.get(key) or ""

    def _go_on(self, instance: DagsterInstance, key: AssetKey) -> None:
        """Count a page of a table; report it if it was the last."""
        if self._counting is None:
            mark = _last_marks(instance, [key]).get(key)
            self._counting = _Counting(key, mark, ages(instance, self._graph, self._nodes[key]))
        counting, self._counting = self._counting, None
        found = next(counting.pages, None)
        if found is not None:
            self._counting = replace(counting, found=found)
            return
        self._report(instance, counting)
        self._due.discard(counting.key)

    def _report(self, instance: DagsterInstance, counted: _Counting) -> None:
        found, key = counted.found or Ages(self._version(counted.key)), counted.key
        evaluation = AssetCheckEvaluation(
            asset_key=key,
            check_name=CURRENT,
            passed=not found.stale,
            severity=AssetCheckSeverity.WARN,
            metadata=found.metadata,
        )
        instance.report_runless_asset_event(evaluation)
        self._behind.pop(key, None)
        if found.stale:
            self._behind[key] = counted.mark


@dataclass(frozen=True)
class _Counting:
    """A table that is being counted, the last mark it had before, and what was found so far."""

    key: AssetKey
    mark: int | None
    pages: Iterator[Ages]
    found: Ages | None = None


def _last_marks(instance: DagsterInstance, keys: Iterable[AssetKey]) -> dict[AssetKey, int]:
    """Return the number of the last mark of each table that has any."""
    entries = [record.asset_entry for record in instance.get_asset_records(list(keys))]
    marks = {entry.asset_key: entry.last_materialization_storage_id for entry in entries}
    return {key: mark for key, mark in marks.items() if mark is not None}
