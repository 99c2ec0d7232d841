"""Which rows were made by other code than `make` is now, told as the check `current`.

Dagster shows a single partition as stale and never says so of an asset that has partitions. So the
sensor counts them once the code of a table has changed, and reports the check: the asset then has a
warning in the graph and on its page, until its rows are made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
)
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from dj_dagster.orchestration.node_keys import present_pages
from dj_dagster.orchestration.provenance import latest_tags
from dj_dagster.orchestration.table_node import TableNode

CURRENT = "current"
"""Name of the check."""

SECONDS = 1.0
"""How long a tick counts, about; the tables that are left have to wait for the next one."""

PAUSE = 5.0
"""Seconds after which stale tables are looked at again, at least."""

SHARE = 20
"""How much longer than counting took it is not done again."""

CHUNK = 10_000
"""Partitions that the event log is asked for at once; SQLite limits a statement's variables."""

SAMPLES = 1000
"""Marks that are read whole at once, at most."""


@dataclass(frozen=True)
class Ages:
    """How many keys of a table were made by which code.

    Attributes
    ----------
    version
        Of `make` as it is now.
    current, stale
        Keys that it made, and keys that other code has made.
    unknown
        Keys that came from elsewhere: a `populate()` without Dagster.
    first
        A stale partition.
    """

    version: str
    current: int = 0
    stale: int = 0
    unknown: int = 0
    first: str = ""

    @property
    def metadata(self) -> dict[str, int | float | str]:
        """What the check shows."""
        counts = {"stale": self.stale, "current": self.current, "unknown": self.unknown}
        first = {"first_stale": self.first} if self.first else {}
        return {**counts, **first, "code_version": self.version}

    def __add__(self, versions: Mapping[str, str | None]) -> Ages:
        """Count some more partitions, given with the versions that made them."""
        stale = [each for each, found in versions.items() if found not in (self.version, None)]
        unknown = sum(found is None for found in versions.values())
        return Ages(
            self.version,
            self.current + len(versions) - len(stale) - unknown,
            self.stale + len(stale),
            self.unknown + unknown,
            self.first or (stale[0] if stale else ""),
        )


def ages(instance: DagsterInstance, node: TableNode, version: str) -> Iterator[Ages]:
    """Count the rows of a table by the code that made them, page by page: the last has them all.

    Parameters
    ----------
    version
        Of `make` as it is now.
    """
    counted = Ages(version)
    yield counted
    for versions in _by_page(instance, node) if node.grain else [_of_whole(instance, node)]:
        counted += versions
        yield counted


class CodeWatch:
    """Reports which tables have rows of other code than theirs is now.

    Parameters
    ----------
    nodes
        The tables, each with the version of its code.
    """

    def __init__(self, nodes: Mapping[AssetKey, tuple[TableNode, str]]) -> None:
        self._nodes = nodes
        self._begun = False
        self._due: set[AssetKey] = set()
        # The tables with stale rows, and the last mark that was there when they were counted.
        self._behind: dict[AssetKey, int | None] = {}
        self._counting: _Counting | None = None
        self._looks_again = 0.0

    def recount(self) -> None:
        """Count the tables with stale rows once more: some may have been deleted."""
        self._due.update(self._behind)

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
        while self._due and time.monotonic() < began + SECONDS:
            self._go_on(instance)
        ended = time.monotonic()
        self._looks_again = ended + max(PAUSE, SHARE * (ended - began))

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
        return version is not None and version.value == self._nodes[record.key.asset_key][1]

    def _go_on(self, instance: DagsterInstance) -> None:
        """Count a page; report the table if it was the last."""
        if self._counting is None:
            key = min(self._due, key=lambda each: tuple(each.path))
            mark = _last_marks(instance, [key]).get(key)
            self._counting = _Counting(key, mark, ages(instance, *self._nodes[key]))
        counting, self._counting = self._counting, None
        found = next(counting.pages, None)
        if found is not None:
            self._counting = replace(counting, found=found)
            return
        self._report(instance, counting)
        self._due.discard(counting.key)

    def _report(self, instance: DagsterInstance, counted: _Counting) -> None:
        found, key = counted.found or Ages(self._nodes[counted.key][1]), counted.key
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


def _of_whole(instance: DagsterInstance, node: TableNode) -> dict[str, str | None]:
    event = instance.get_latest_materialization_event(node.key)
    if event is None or not node.table:
        return {}
    return {"": (event.tags or {}).get(CODE_VERSION_TAG)}


def _by_page(instance: DagsterInstance, node: TableNode) -> Iterator[dict[str, str | None]]:
    """Yield the code versions of the partitions that have rows.

    Dagster finds data versions fast, and rows with the same one are of the same run.
    """
    versions: dict[str, str | None] = {}
    for page in present_pages(node):
        for start in range(0, len(page), CHUNK):
            partitions = list(dict.fromkeys(page[start : start + CHUNK]))
            runs = _runs(instance, node.key, partitions)
            unknown = {run: each for each, run in runs.items() if run not in versions}
            tags = _tags(instance, node.key, unknown.values())
            for run, partition in unknown.items():
                versions[run] = tags.get(partition, {}).get(CODE_VERSION_TAG)
            yield {each: versions.get(runs.get(each, "")) for each in partitions}


def _runs(instance: DagsterInstance, key: AssetKey, partitions: Sequence[str]) -> dict[str, str]:
    found = instance.event_log_storage.get_latest_tags_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG], partitions
    )
    return {partition: tags[DATA_VERSION_TAG] for partition, tags in found.items()}


def _tags(
    instance: DagsterInstance, key: AssetKey, partitions: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    wanted = list(partitions)
    found: dict[str, Mapping[str, str]] = {}
    for start in range(0, len(wanted), SAMPLES):
        found |= latest_tags(instance, key, wanted[start : start + SAMPLES])
    return found
