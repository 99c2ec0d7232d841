"""Versions in Dagster's marks: of the code, of the rows, and of the rows that they come from.

They are Dagster's own tags, so that its UI shows a partition as stale once `make` has changed. All
rows that one run makes in a table share a data version, the run's id, because a run makes a key
once at most. The notes on the keys tell whether an input has changed since, see `stale_marks`:
Dagster itself compares the inputs of single partitions only within a grain, and by its own history.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from dagster import AssetKey, AssetRecordsFilter, DagsterEventType, DagsterInstance, EventLogRecord

from dj_dagster.orchestration._dagster import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dj_dagster.orchestration.runs.event_log import Mark
from dj_dagster.orchestration.tables.grains import Grain
from dj_dagster.orchestration.tables.table_graph import CodeVersions, TableGraph
from dj_dagster.orchestration.tables.table_node import TableNode

__all__ = ["CodeVersions", "Provenance", "data_versions", "last_marks"]

Tags = Mapping[str, str]

UNKNOWN = DEFAULT_DATA_VERSION.value
"""Dagster's data version for rows that people entered."""

CHUNK = 10_000
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
    storage, event = instance.event_log_storage, DagsterEventType.ASSET_MATERIALIZATION
    ids = sorted(storage.get_latest_storage_id_by_partition(key, event, set(partitions)).values())
    for start in range(0, len(ids), SAMPLES):
        chunk = ids[start : start + SAMPLES]
        wanted = AssetRecordsFilter(asset_key=key, storage_ids=chunk)
        yield from storage.fetch_materializations(wanted, limit=len(chunk)).records


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
