"""Stale rows as Dagster shows them: by the marks of rows, and by the check `current`.

The notes that `populate` keeps with the rows decide, whichever process ran it; see
`workflow.notes`. For keys without a note, the code version in the last mark decides. Dagster itself
compares the code version of a mark with that of the asset. For a changed input, the sensor writes a
further mark, which names an input that the asset does not have.

Dagster shows single partitions as stale, but not an asset that has partitions. After a change of a
table's code, or of rows that it refers to, the sensor therefore counts the stale keys and reports
the check: the asset has a warning in the graph and on its page until its rows are made again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
)

from dj_dagster.orchestration._dagster import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dj_dagster.orchestration.runs.marks import Mark
from dj_dagster.orchestration.runs.shown_marks import (
    LastMark,
    Provenance,
    checked_marks,
    data_versions,
    last_marks,
)
from dj_dagster.orchestration.sensor.sensor_settings import DueTables
from dj_dagster.orchestration.tables.partitions import decoded, key_pages, present_pages
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.workflow.notes import STALE, Age, Note
from dj_dagster.workflow.populate import Key

CHANGED = "/changed"
"""The end of the data version in a mark for a changed input."""

CHANGED_INPUT = AssetKey("a_row_it_refers_to_which_has_changed")
"""The input that a mark for a changed input names; Dagster shows `removed dependency on` it."""

WORST: tuple[Age, ...] = ("code", "inputs", "unknown", "current")
"""The ages by rank: a partition of several keys has the first of the ages of its keys."""

Row = tuple[object, ...]


@dataclass(frozen=True)
class Aged:
    """The age of one key or partition, with the note that tells it; None if a mark tells it."""

    age: Age
    note: Note | None = None

    @property
    def stale(self) -> bool:
        """Whether the key or partition is to be made again."""
        return self.age in STALE


UNKNOWN = Aged("unknown")


@dataclass(frozen=True)
class Outdated:
    """The findings on some partitions.

    Attributes
    ----------
    marks
        The new marks that they need.
    unnoted
        The partitions without notes.
    changed, others
        The partitions whose inputs have changed since they were made, and all others.
    """

    marks: Sequence[Mark] = ()
    unnoted: Sequence[str] = ()
    changed: Set[str] = frozenset()
    others: Set[str] = frozenset()


class Aging:
    """The ages of the rows of a table that `make` fills, and the marks that show them.

    Parameters
    ----------
    node
        The table.
    """

    def __init__(self, instance: DagsterInstance, graph: TableGraph, node: TableNode) -> None:
        self._instance = instance
        self._node = node
        self._provenance = Provenance(instance, graph, node, "")
        self._version = graph.versions.get(node.key)
        self._staleness = node.staleness
        # The code version in the last mark, by its data version without `CHANGED`.
        self._codes: dict[str, str | None] = {}

    def of_keys(self, keys: Sequence[Key]) -> dict[Row, Aged]:
        """Return the ages of keys of `make` that are in the table, by their values."""
        found = {row: Aged(*each) for row, each in self._staleness.of(keys).items()}
        unnoted = [key for key in keys if found[tuple(key.values())].note is None]
        grain = self._node.grain
        if unnoted and grain is not None and self._version is not None:
            rows = (tuple(key.values()) for key in unnoted)
            partitions = dict(zip(rows, self._node.partitions_of(unnoted), strict=True))
            ages = self._marked_ages(sorted(set(partitions.values())))
            found |= {row: Aged(ages.get(each, "unknown")) for row, each in partitions.items()}
        return found

    def of(self, partitions: Sequence[str]) -> dict[str, Aged]:
        """Return the ages of partitions that have rows."""
        found: dict[str, Aged] = {}
        grain = self._node.grain
        if grain is None or not partitions:
            return found
        keys = self.keys_in(partitions)
        ages = self.of_keys(keys)
        for key in keys:
            partition, age = grain.encode(key), ages[tuple(key.values())]
            found[partition] = min(found.get(partition, age), age, key=_rank)
        return found

    def noted(self, partitions: Iterable[str]) -> set[str]:
        """Return those partitions in the table of which a row has a note."""
        grain = self._node.grain
        keys = self.keys_in(partitions)
        found = self._staleness.of(keys)
        noted = [key for key in keys if found[tuple(key.values())][1] is not None]
        return set(grain.encode_all(noted)) if grain is not None else set()

    def keys_in(self, partitions: Iterable[str]) -> list[Key]:
        """Return the keys of `make` that are in the table in some partitions."""
        grain = self._node.grain
        keys = decoded(grain, list(partitions))
        if not self._node.coarse:
            return keys
        return [key for page in self._staleness.pages(keys) for key in self._node.respelled(page)]

    def pages(self) -> Iterator[list[Key]]:
        """Yield all keys of `make` that are in the table, page by page."""
        names = self._node.populator.key_names
        if not names:
            yield [{}] if len(self._node.table) else []
            return
        for page in key_pages(self._node.table, names):
            yield [dict(zip(names, row, strict=True)) for row in page]

    def stale(self, *restrictions: object) -> list[Key]:
        """Return the stale keys among those in the table for which all restrictions hold."""
        found: list[Key] = []
        for page in self._staleness.pages(*restrictions):
            ages = self.of_keys(page)
            found += [key for key in page if ages[tuple(key.values())].stale]
        return self._node.respelled(found)

    def marks(self, node: TableNode, partitions: Sequence[str]) -> list[Mark]:
        """Return first marks of partitions that have rows.

        Parameters
        ----------
        node
            The table, or the part of it, that has the rows.
        """
        ages = self.of(partitions)
        return self._marks(node, {p: ages.get(p, UNKNOWN) for p in partitions})

    def outdated(self, partitions: Sequence[str]) -> Outdated:
        """Return findings on partitions, with new marks where marks and notes disagree."""
        ages = self.of(partitions)
        unnoted = [partition for partition, aged in ages.items() if aged.note is None]
        noted = {partition: aged for partition, aged in ages.items() if aged.note is not None}
        versions = data_versions(self._instance, self._node.key, list(noted))
        renamed = self._node.renamed([each for each in noted if each not in versions])
        if renamed:
            versions |= data_versions(self._instance, self._node.key, list(renamed.values()))
            noted = {renamed.get(each, each): aged for each, aged in noted.items()}
            ages = {renamed.get(each, each): aged for each, aged in ages.items()}
        codes = self._codes_of(versions)
        wrong = {
            partition: aged
            for partition, aged in noted.items()
            if partition not in versions
            or codes.get(partition) != self._code(aged)
            or versions[partition].endswith(CHANGED) != (aged.age == "inputs")
        }
        changed = {partition for partition, aged in noted.items() if aged.age == "inputs"}
        return Outdated(self._again(wrong), unnoted, changed, ages.keys() - changed)

    def _again(self, wrong: Mapping[str, Aged]) -> list[Mark]:
        found: list[Mark] = []
        if not wrong:
            return found
        new = {mark.partition: mark for mark in self._marks(self._node, wrong)}
        for record in last_marks(self._instance, self._node.key, wrong):
            mark, old = new[record.partition_key], record.asset_materialization
            tags = record.event_log_entry.tags or {}
            same = (mark.tags or {}).get(CODE_VERSION_TAG) == tags.get(CODE_VERSION_TAG)
            # The metadata of a mark with another code version describe other rows.
            kept = dict(old.metadata) if old is not None and same else {}
            kept.pop(_STALE, None)
            found.append(_with(mark, kept))
        return found

    def _marks(self, node: TableNode, ages: Mapping[str, Aged]) -> list[Mark]:
        noted = [partition for partition, aged in ages.items() if aged.note is not None]
        inputs = self._provenance.inputs(noted)
        found: list[Mark] = []
        for partition, aged in ages.items():
            mark = Mark(node.key, partition)
            if aged.note is not None:
                mark = self._noted(mark, aged, aged.note, inputs)
            found.append(mark)
        return found

    def _noted(
        self, mark: Mark, aged: Aged, note: Note, inputs: Mapping[AssetKey, Mapping[str, str]]
    ) -> Mark:
        changed = aged.age == "inputs"
        code = self._code(aged)
        version = f"{code}/{note.inputs.hex[:12]}{CHANGED if changed else ''}"
        tags = dict(self._provenance.tags(mark, code, version, inputs))
        if not changed:
            return Mark(mark.key, mark.partition, tags=tags)
        tags[get_input_data_version_tag(CHANGED_INPUT)] = "changed"
        tags[get_input_event_pointer_tag(CHANGED_INPUT)] = "NULL"
        metadata = {_STALE: "a row that it refers to has changed since it was made"}
        return Mark(mark.key, mark.partition, metadata, tags=tags)

    def _code(self, aged: Aged) -> str:
        """Return the code version for a mark: the asset's if the code is unchanged or unknown."""
        code = aged.note.code if aged.note is not None else ""
        return (self._version or code) if code in ("", self._staleness.code) else code

    def _marked_ages(self, partitions: Sequence[str]) -> dict[str, Age]:
        versions = data_versions(self._instance, self._node.key, partitions)
        return {
            partition: "current" if code == self._version else "code"
            for partition, code in self._codes_of(versions).items()
            if code is not None
        }

    def _codes_of(self, versions: Mapping[str, str]) -> dict[str, str | None]:
        """Return the code versions of the last marks, given with their data versions.

        Dagster finds data versions fast, and rows with equal data versions are of the same code.
        """
        bases = {p: version.removesuffix(CHANGED) for p, version in versions.items()}
        samples = {base: p for p, base in bases.items() if base not in self._codes}
        for record in last_marks(self._instance, self._node.key, list(samples.values())):
            tags = record.event_log_entry.tags or {}
            base = tags.get(DATA_VERSION_TAG, "").removesuffix(CHANGED)
            self._codes[base] = tags.get(CODE_VERSION_TAG)
        return {partition: self._codes.get(base) for partition, base in bases.items()}


def first_marks(
    instance: DagsterInstance, graph: TableGraph, node: TableNode, partitions: Sequence[str]
) -> list[Mark]:
    """Return marks of partitions without one, with tags from the notes on how they were made."""
    filled = graph.by_key[node.master] if node.master is not None else node
    if not filled.populated:
        return [Mark(node.key, partition) for partition in partitions]
    return Aging(instance, graph, filled).marks(node, partitions)


def outdated_pages(
    instance: DagsterInstance, graph: TableGraph, node: TableNode
) -> Iterator[Outdated]:
    """Yield the results of `Aging.outdated` for a whole table, page by page."""
    aging = Aging(instance, graph, node)
    for page in present_pages(node):
        yield aging.outdated(page)


_STALE = "stale"


def _with(mark: Mark, metadata: Mapping[str, object]) -> Mark:
    together = {**metadata, **(mark.metadata or {})}
    return Mark(mark.key, mark.partition, together, tags=mark.tags)


def _rank(aged: Aged) -> int:
    return WORST.index(aged.age)


CURRENT = "current"
"""Name of the check."""

SECONDS = 1.0
"""Seconds that a tick counts, about; the remaining tables wait for the next tick."""

CHUNK = 10_000
"""Keys whose age is found together."""


@dataclass(frozen=True)
class Ages:
    """The numbers of keys of a table by their age.

    Attributes
    ----------
    version
        The version of `make` as it is now.
    current, stale
        Keys that this version made, and keys that other code made, or that were made from rows that
        have changed since.
    changed
        The stale keys that were made from rows that have changed since.
    unknown
        Keys of unknown age: DataJoint itself, or a worker that was killed, has made them.
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
        """The metadata of the check."""
        counts = {"stale": self.stale, "current": self.current, "unknown": self.unknown}
        changed = {"changed_inputs": self.changed} if self.changed else {}
        first = {"first_stale": self.first} if self.first else {}
        return {**counts, **changed, **first, "code_version": self.version}

    @property
    def keys(self) -> int:
        """The number of keys that were counted."""
        return self.stale + self.current + self.unknown

    def __add__(self, found: Sequence[tuple[Key, Aged]]) -> Ages:
        """Return the numbers with some more keys counted."""
        counts = Counter(aged.age for _, aged in found)
        return replace(
            self,
            current=self.current + counts["current"],
            stale=self.stale + counts["code"] + counts["inputs"],
            changed=self.changed + counts["inputs"],
            unknown=self.unknown + counts["unknown"],
        )


def ages(instance: DagsterInstance, graph: TableGraph, node: TableNode) -> Iterator[Ages]:
    """Yield the numbers of keys of a table by their age; the last one counts all keys."""
    counted = Ages(graph.versions.get(node.key) or "")
    yield counted
    aging = Aging(instance, graph, node)
    for keys in aging.pages():
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            found = aging.of_keys(chunk)
            counted += [(key, found[tuple(key.values())]) for key in chunk]
            if not counted.first and (stale := next(_stale(chunk, found), None)) is not None:
                (first,) = node.partitions_of([stale]) or [node.title]
                counted = replace(counted, first=first)
            yield counted


def _stale(keys: Iterable[Key], ages: Mapping[Row, Aged]) -> Iterator[Key]:
    return (key for key in keys if ages[tuple(key.values())].stale)


class CodeWatch:
    """A watch on tables that reports which of them have stale rows.

    Parameters
    ----------
    nodes
        The tables of the graph to watch; the versions of their code are known.
    """

    def __init__(self, graph: TableGraph, nodes: Iterable[TableNode]) -> None:
        self._graph = graph
        self._nodes = {node.key: node for node in nodes}
        self._begun = False
        self._due: set[AssetKey] = set()
        # The tables with new marks, and the last marks of those that were counted.
        self._marked = DueTables()
        self._told: dict[AssetKey, LastMark | None] = {}
        self._behind: set[AssetKey] = set()
        self._counting: _Counting | None = None

    def recount(self) -> None:
        """Have the tables with stale rows counted once more: some rows may have been deleted."""
        self._due.update(self._behind)

    def look_again(self, node: TableNode) -> None:
        """Have a table counted in which the age of rows has changed."""
        if node.key in self._nodes:
            self._due.add(node.key)

    def note_marks(self, node: TableNode) -> None:
        """Note that a table has new marks; Dagster shows older results as not evaluated."""
        if node.key in self._nodes:
            self._marked.note(node.key)

    def report(self, instance: DagsterInstance, busy: Collection[AssetKey] = ()) -> None:
        """Count and report the tables whose code, rows or marks have changed since the last report.

        Counting stops after about `SECONDS`, and the next call goes on.

        Parameters
        ----------
        busy
            Tables with a run at work, whose new marks wait; see `DueTables`.

        Raises
        ------
        Exception
            The error of a table that could not be counted, after the other tables were.
        """
        began = time.monotonic()
        if not self._begun:
            # An empty table does not have keys to count.
            marks = checked_marks(instance, self._nodes)
            self._due |= self._unreported(instance, marks) & marks.keys()
            self._told.update({key: marks.get(key) for key in self._nodes.keys() - self._due})
            self._begun = True
        if ready := self._marked.ready(busy):
            for key in ready:
                self._marked.take(key)
            marks = checked_marks(instance, ready)
            self._due.update(key for key in ready if marks.get(key) != self._told.get(key))
        if not self._due:
            return
        failed: dict[AssetKey, Exception] = {}
        while self._due - failed.keys() and time.monotonic() < began + SECONDS:
            key = min(self._due - failed.keys(), key=lambda each: tuple(each.path))
            key = self._counting.key if self._counting is not None else key
            try:
                self._go_on(instance, key)
            except Exception as error:
                # Readable tables must not wait for one that cannot be read.
                failed[key] = error
        for error in failed.values():
            raise error

    def _unreported(
        self, instance: DagsterInstance, marks: Mapping[AssetKey, LastMark]
    ) -> set[AssetKey]:
        checks = [AssetCheckKey(key, CURRENT) for key in self._nodes]
        storage = instance.event_log_storage
        found = storage.get_latest_asset_check_execution_by_key(checks)
        reported = {
            check.asset_key
            for check in checks
            if self._is_so(found.get(check), marks.get(check.asset_key))
        }
        return set(self._nodes) - reported

    def _is_so(self, record: AssetCheckExecutionRecord | None, mark: LastMark | None) -> bool:
        """Whether a table has passed its last check, with the present code and the last mark."""
        if record is None or record.status is not AssetCheckExecutionRecordStatus.SUCCEEDED:
            return False
        evaluation = record.evaluation
        if evaluation is None or evaluation.target_materialization_data != mark:
            return False
        version = evaluation.metadata.get("code_version")
        return version is not None and version.value == self._version(record.key.asset_key)

    def _version(self, key: AssetKey) -> str:
        return self._graph.versions.get(key) or ""

    def _go_on(self, instance: DagsterInstance, key: AssetKey) -> None:
        """Count a page of a table, or report the table after its last page."""
        if self._counting is None:
            mark = checked_marks(instance, [key]).get(key)
            pages = ages(instance, self._graph, self._nodes[key])
            self._counting = _Counting(key, mark, pages, time.monotonic())
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
            target_materialization_data=counted.mark,
        )
        instance.report_runless_asset_event(evaluation)
        self._told[key] = counted.mark
        self._behind.discard(key)
        if found.stale:
            self._behind.add(key)
        self._marked.looked(key, counted.began, found.keys)


@dataclass(frozen=True)
class _Counting:
    """A table that is being counted, its last mark before that, and the numbers so far."""

    key: AssetKey
    mark: LastMark | None
    pages: Iterator[Ages]
    began: float
    found: Ages | None = None
