"""Marks that Dagster shows of partitions: read, found missing, taken back; the versions in them.

Marks of rows that are gone are taken back. Most deleted rows are made again, or their partitions go
with them. The marks of other rows remain: of keys that the key source leaves out by now, of keys
below a failing key, and of rows that people have deleted.

Versions are Dagster's own tags, so that its UI shows a partition as stale once `make` has changed.
All rows that one run makes in a table share a data version, the run's id, because a run makes a key
once at most. The notes on the keys tell whether an input has changed since, see `stale_marks`:
Dagster itself compares the inputs of single partitions only within a grain, and by its own history.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import sqlalchemy as sa
from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    EventLogRecord,
    RunsFilter,
)

from dj_dagster.errors import AccessError
from dj_dagster.orchestration._dagster import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NOT_FINISHED_STATUSES,
    NULL_EVENT_POINTER,
    AssetCheckEvaluationTargetMaterializationData,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dj_dagster.orchestration.runs.event_log import write_marks
from dj_dagster.orchestration.runs.marks import Mark
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.partitions import (
    Regions,
    decoded,
    present_among,
    present_in,
    present_pages,
)
from dj_dagster.orchestration.tables.table_graph import TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode
from dj_dagster.workflow.notes import Notes

Tags = Mapping[str, str]

UNKNOWN = DEFAULT_DATA_VERSION.value
"""Dagster's data version for rows that people entered."""


"""Partitions of one query of the event log, at most; SQLite limits a statement's variables."""

SAMPLES = 1000
"""Complete marks that are read at once, at most."""


class Provenance:
    """The source of the version tags on the marks of one table and its parts.

    Parameters
    ----------
    node
        The table that `make` fills; its parts are included.
    run_id
        The id of the run that makes its rows.
    """

    def __init__(
        self, instance: DagsterInstance, graph: TableGraph, node: TableNode, run_id: str
    ) -> None:
        self.instance = instance
        self.graph = graph
        self.node = node
        self.version = graph.versions.get(node.key)
        self._run_id = run_id

    def tagged(self, marks: Sequence[Mark]) -> list[Mark]:
        """Return the marks of a run, with tags on the marks of rows that it has made."""
        version = self.version
        if version is None:
            return list(marks)
        made = [mark for mark in marks if _says_made(mark)]
        inputs = self.inputs({mark.partition for mark in made if mark.partition is not None})
        return [
            replace(mark, tags=self.tags(mark, version, self._run_id, inputs))
            if _says_made(mark)
            else mark
            for mark in marks
        ]

    def tags(
        self, mark: Mark, code: str, version: str, inputs: Mapping[AssetKey, Mapping[str, str]]
    ) -> Tags:
        """Return the tags of a mark.

        Parameters
        ----------
        code, version
            The version of the code that has made the rows, and the data version of the rows.
        inputs
            See `inputs`.
        """
        tags = {CODE_VERSION_TAG: code, DATA_VERSION_TAG: version}
        for parent in self.graph.by_key[mark.key].parents:
            known = inputs.get(parent, {})
            own = version if parent == self.node.key else known.get(mark.partition or "", UNKNOWN)
            tags[get_input_data_version_tag(parent)] = own
            tags[get_input_event_pointer_tag(parent)] = NULL_EVENT_POINTER
        return tags

    def inputs(self, partitions: Collection[str]) -> dict[AssetKey, Mapping[str, str]]:
        """Return the data versions of the parents' rows, by the partitions of this table."""
        parts = self.graph.parts(self.node)
        parents = {parent for node in (self.node, *parts) for parent in node.parents}
        return {parent: self._versions(parent, partitions) for parent in parents - {self.node.key}}

    def _versions(self, parent: AssetKey, partitions: Collection[str]) -> Mapping[str, str]:
        node = self.graph.by_key.get(parent)
        if node is None or node.grain is None or self.node.grain is None:
            return dict.fromkeys([*partitions, ""], self._whole_versions.get(parent, UNKNOWN))
        mapped = _mapped(self.node.grain, node.grain, partitions)
        found = data_versions(self.instance, parent, sorted(set(mapped.values())))
        return {own: found[theirs] for own, theirs in mapped.items() if theirs in found}

    @cached_property
    def _whole_versions(self) -> dict[AssetKey, str]:
        """The data versions of parents without partitions."""
        parts = self.graph.parts(self.node)
        found: dict[AssetKey, str] = {}
        for parent in {key for node in (self.node, *parts) for key in node.parents}:
            node = self.graph.by_key.get(parent)
            if node is None or node.grain is None:
                event = self.instance.get_latest_materialization_event(parent)
                version = extract_data_version_from_entry(event) if event else None
                found[parent] = version.value if version else UNKNOWN
        return found


def data_versions(
    instance: DagsterInstance, key: AssetKey, partitions: Sequence[str]
) -> dict[str, str]:
    """Return the data versions of the last marks of partitions, where they have one."""
    found: dict[str, str] = {}
    for start in range(0, len(partitions), CHUNK):
        tags = instance.event_log_storage.get_latest_tags_by_partition(
            key,
            DagsterEventType.ASSET_MATERIALIZATION,
            [DATA_VERSION_TAG],
            partitions[start : start + CHUNK],
        )
        found |= {partition: each[DATA_VERSION_TAG] for partition, each in tags.items()}
    return found


def last_marks(
    instance: DagsterInstance, key: AssetKey, partitions: Collection[str]
) -> Iterator[EventLogRecord]:
    """Yield the complete last marks of some partitions of a table."""
    storage = instance.event_log_storage
    ids = sorted(last_events(instance, key, _MATERIALIZATION, partitions).values())
    for start in range(0, len(ids), SAMPLES):
        chunk = ids[start : start + SAMPLES]
        wanted = AssetRecordsFilter(asset_key=key, storage_ids=chunk)
        yield from storage.fetch_materializations(wanted, limit=len(chunk)).records


def last_events(
    instance: DagsterInstance, key: AssetKey, kind: DagsterEventType, partitions: Collection[str]
) -> Mapping[str, int]:
    """Return the numbers of the last events of one kind, by partition.

    Dagster takes an empty set for all partitions. Each look at a table whose marks have no versions
    then read all of its marks, which took 40 seconds for 200,000.
    """
    if not partitions:
        return {}
    storage = instance.event_log_storage
    return storage.get_latest_storage_id_by_partition(key, kind, set(partitions))


def _says_made(mark: Mark) -> bool:
    return not mark.kind and not mark.again


def _mapped(own: Grain, theirs: Grain, partitions: Iterable[str]) -> dict[str, str]:
    """Return the parent's partitions by ours; empty if our key lacks attributes of the parent's."""
    if own == theirs:
        return {partition: partition for partition in partitions}
    lineages = {attribute.lineage: attribute.name for attribute in own.attributes}
    names = {attribute.name: lineages.get(attribute.lineage) for attribute in theirs.attributes}
    if None in names.values():
        return {}
    mapped: dict[str, str] = {}
    for partition in partitions:
        key = own.decode(partition)
        mapped[partition] = theirs.encode(
            {name: key[mine] for name, mine in names.items() if mine is not None}
        )
    return mapped


CHUNK = 10_000
"""Partitions of one query of the event log, at most; SQLite limits a statement's variables."""

RUNS = 500
"""Runs of one query, at most."""

_MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION
_PLAN = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_OBSERVATION = DagsterEventType.ASSET_OBSERVATION

State = Literal["made", "failed", "running", "missing"]


@dataclass(frozen=True, slots=True)
class Shown:
    """The state of one partition as Dagster shows it.

    Attributes
    ----------
    state
        ``failed`` if the last plan, without a later materialisation, is of a failed run;
        ``running`` if it is of an unfinished run.
    marked
        Whether the partition has a materialisation at all.
    noted
        Whether its page has a note that is younger than the last plan.
    """

    state: State = "missing"
    marked: bool = False
    noted: bool = False


MISSING = Shown()


def shown(
    instance: DagsterInstance, key: AssetKey, partitions: Collection[str], *, notes: bool = False
) -> dict[str, Shown]:
    """Return the states of those of some partitions of a table that Dagster shows something of.

    Parameters
    ----------
    notes
        Whether to read `Shown.noted`.
    """
    kinds = (_MATERIALIZATION, _PLAN, _OBSERVATION) if notes else (_MATERIALIZATION, _PLAN)
    found: dict[str, Shown] = {}
    for chunk in _chunks(list(partitions), CHUNK):
        last = _last_events(instance, key, kinds, chunk)
        made, plans, noted = last[_MATERIALIZATION], last[_PLAN], last.get(_OBSERVATION, {})
        found |= dict.fromkeys(made, Shown("made", marked=True))
        tried = {p: plan for p, plan in plans.items() if plan > made.get(p, 0)}
        for partition, state in _states(instance, key, tried).items():
            later = noted.get(partition, 0) > tried[partition]
            found[partition] = Shown(state, partition in made, later)
    return found


def shown_as_failed(instance: DagsterInstance, key: AssetKey) -> list[str]:
    """Return all partitions of a table that are shown as failed."""
    storage = instance.event_log_storage
    plans = storage.get_latest_storage_id_by_partition(key, _PLAN)
    found = shown(instance, key, plans)
    return [partition for partition, each in found.items() if each.state == "failed"]


def _last_events(
    instance: DagsterInstance,
    key: AssetKey,
    kinds: Sequence[DagsterEventType],
    partitions: Sequence[str],
) -> Mapping[DagsterEventType, Mapping[str, int]]:
    """Return the numbers of the last events of each kind, by partition."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return {kind: last_events(instance, key, kind, partitions) for kind in kinds}
    # One statement for all kinds: the partitions' names take most of its time.
    last = storage._latest_event_ids_by_partition_subquery(key, kinds, partitions)
    query = sa.select(last.c.dagster_event_type, last.c.partition, last.c.id)
    found: dict[DagsterEventType, dict[str, int]] = {kind: {} for kind in kinds}
    with storage.index_connection() as connection:
        for kind, partition, number in connection.execute(query):
            found[DagsterEventType(kind)][partition] = number
    return found


def _states(instance: DagsterInstance, key: AssetKey, plans: Mapping[str, int]) -> dict[str, State]:
    """Return the states of partitions whose plans are of failed or unfinished runs."""
    if not plans:
        return {}
    runs = _runs_of(instance, key, plans)
    ids = sorted(set(runs.values()))
    failed = _having(instance, ids, [DagsterRunStatus.FAILURE])
    unfinished = _having(instance, ids, list(NOT_FINISHED_STATUSES))
    states: dict[str, State] = dict.fromkeys(failed, "failed")
    states |= dict.fromkeys(unfinished, "running")
    return {partition: states[run] for partition, run in runs.items() if run in states}


def _runs_of(instance: DagsterInstance, key: AssetKey, plans: Mapping[str, int]) -> dict[str, str]:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        every = storage.get_latest_asset_partition_materialization_attempts_without_materializations
        return {p: run for p, (run, _) in every(key).items() if p in plans}
    events = SqlEventLogStorageTable.c
    query = sa.select(events.id, events.run_id).where(events.id.in_(list(plans.values())))
    with storage.index_connection() as connection:
        rows = connection.execute(query).all()
    runs: dict[int, str] = {number: run for number, run, *_ in rows}
    return {partition: runs[plan] for partition, plan in plans.items() if plan in runs}


def _having(
    instance: DagsterInstance, run_ids: Sequence[str], statuses: list[DagsterRunStatus]
) -> set[str]:
    """Return those of some runs that are in one of the statuses."""
    found: set[str] = set()
    for chunk in _chunks(run_ids, RUNS):
        found.update(instance.get_run_ids(RunsFilter(run_ids=list(chunk), statuses=statuses)))
    return found


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


ROWS = "dagster/row_count"


def unmarked_pages(instance: DagsterInstance, node: TableNode) -> Iterator[list[str]]:
    """Yield the `unmarked` partitions of a whole table, page by page."""
    for page in present_pages(node):
        yield unmarked(instance, node, page)


def unmarked_in(instance: DagsterInstance, node: TableNode, regions: Regions) -> list[str]:
    """Return the `unmarked` partitions that have rows in some regions."""
    return unmarked(instance, node, present_in(node, regions))


def unmarked(instance: DagsterInstance, node: TableNode, partitions: list[str]) -> list[str]:
    """Return those of some partitions with rows that are finished and without a mark in Dagster."""
    lacking = _unmarked(instance, node, partitions)
    renamed = node.renamed(lacking)
    if renamed:
        new = _unmarked(instance, node, sorted(set(renamed.values())))
        lacking = list(dict.fromkeys([*(p for p in lacking if p not in renamed), *new]))
    return node.finished(lacking)


def _unmarked(instance: DagsterInstance, node: TableNode, partitions: list[str]) -> list[str]:
    known = shown(instance, node.key, partitions)
    return [p for p in partitions if not known.get(p, MISSING).marked]


def repeated(
    instance: DagsterInstance, node: TableNode, partitions: Collection[str]
) -> dict[str, Mark]:
    """Return marks that repeat the last materialisations of some partitions."""
    records = last_marks(instance, node.key, partitions) if partitions else ()
    found = {record.partition_key or "": record.asset_materialization for record in records}
    return {
        partition: Mark(node.key, partition, mark.metadata, again=True, tags=mark.tags)
        for partition, mark in found.items()
        if mark is not None
    }


def mark_row_count(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table without partitions with its number of rows, if that number has changed.

    Returns the number of marks written.
    """
    rows = len(node.table)
    if rows == (_marked_row_count(instance, node.key) or 0):
        return 0
    return write_marks(instance, [Mark(node.key, None, {ROWS: rows})])


def mark_single(instance: DagsterInstance, node: TableNode) -> int:
    """Mark a table that `make` fills and that has at most one row, if it is unmarked.

    Returns the number of marks written.
    """
    if instance.get_latest_materialization_event(node.key) is not None or not node.table:
        return 0
    return write_marks(instance, [Mark(node.key, None)])


def _marked_row_count(instance: DagsterInstance, key: AssetKey) -> object:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(ROWS)
    return None if value is None else value.value


_MADE = DagsterEventType.ASSET_MATERIALIZATION


def vanished_pages(
    instance: DagsterInstance, node: TableNode, keys: Sequence[AssetKey]
) -> Iterator[list[str]]:
    """Take back the marks of rows that are gone, piece by piece.

    Parameters
    ----------
    node
        The table whose rows are compared with the marks.
    keys
        The assets whose marks follow its rows: the table itself, and its parts.

    Yields
    ------
    list of str
        After each piece of work, the partitions without rows whose marks it has taken back.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        # Dagster itself cannot wipe single partitions.
        return
    # The marks of rows that come during this work have greater numbers.
    last = storage.get_maximum_record_id() or 0
    marked = {key: storage.get_materialized_partitions(key) for key in keys}
    gone = set[str]().union(*marked.values())
    yield []
    for page in present_pages(node):
        gone.difference_update(page)
        yield []
    waiting = sorted(gone)
    for start in range(0, len(waiting), CHUNK):
        chunk = waiting[start : start + CHUNK]
        chunk = sorted(set(chunk) - present_among(node, chunk))
        for key in keys:
            _take_back(storage, key, [each for each in chunk if each in marked[key]], last)
        _forget_notes(node, chunk)
        yield chunk


def _forget_notes(node: TableNode, partitions: Sequence[str]) -> None:
    """Remove the notes on keys without rows, which another row may get when it is renamed."""
    if node.grain is None or not node.populated or node.coarse:
        return
    notes = Notes(node.table, node.populator.key_names)
    # The sensor's user may lack the right to delete them.
    with suppress(AccessError):
        notes.forget(decoded(node.grain, partitions))


def _take_back(
    storage: SqlEventLogStorage, key: AssetKey, partitions: Iterable[str], last: int
) -> None:
    """Delete the materialisations of partitions, as Dagster does when an asset is wiped."""
    wanted = list(partitions)
    if not wanted:
        return
    events, tags = SqlEventLogStorageTable.c, AssetEventTagsTable.c
    of_rows = sa.and_(
        events.asset_key == key.to_string(),
        events.dagster_event_type == _MADE.value,
        events.partition.in_(wanted),
        events.id <= last,
    )
    with storage.index_connection() as connection:
        numbers = sa.select(events.id).where(of_rows)
        connection.execute(AssetEventTagsTable.delete().where(tags.event_id.in_(numbers)))
        connection.execute(SqlEventLogStorageTable.delete().where(of_rows))
    # Dagster's cache would go on showing these partitions as materialised.
    storage.wipe_asset_cached_status(key)


LastMark = AssetCheckEvaluationTargetMaterializationData
"""A mark as the result of a check names it."""


def checked_marks(instance: DagsterInstance, keys: Iterable[AssetKey]) -> dict[AssetKey, LastMark]:
    """Return the last mark of each table that has any, for results of checks that follow it.

    Dagster shows a check as not evaluated unless its result tells of the last mark. By times alone
    it does not know the order within a second.
    """
    # Dagster takes an empty list for all assets.
    records = instance.get_asset_records(wanted) if (wanted := list(keys)) else ()
    entries = [record.asset_entry for record in records]
    last = {entry.asset_key: entry.last_materialization_record for entry in entries}
    return {
        key: LastMark(storage_id=mark.storage_id, run_id=mark.run_id, timestamp=mark.timestamp)
        for key, mark in last.items()
        if mark is not None
    }
