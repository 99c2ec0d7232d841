"""What a mark says of how its rows came to be: code version, data version, those of its inputs.

They are Dagster's own tags, so that its UI shows a partition as stale once `make` has changed, or
once one of its inputs was made again. All rows that one run makes in a table share a data version,
the run's id: a run makes a key once at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from dagster import AssetKey, AssetRecordsFilter, DagsterEventType, DagsterInstance
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from dj_dagster.orchestration.events import Mark
from dj_dagster.orchestration.grains import Grain
from dj_dagster.orchestration.table_graph import TableGraph
from dj_dagster.orchestration.table_node import TableNode

Tags = Mapping[str, str]

CodeVersions = Mapping[AssetKey, str | None]
"""By asset, the version of the code that fills it."""

UNKNOWN = DEFAULT_DATA_VERSION.value
"""The data version of rows that people entered, in Dagster's words."""


class Provenance:
    """Gives the marks of one step their tags.

    Parameters
    ----------
    node
        The table that the step fills; its parts come along.
    versions
        The code versions of tables; those without are marked without tags.
    run_id
        Of the step's run.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        graph: TableGraph,
        node: TableNode,
        versions: CodeVersions,
        run_id: str,
    ) -> None:
        self._instance = instance
        self._graph = graph
        self._node = node
        self._version = versions.get(node.key)
        self._run_id = run_id
        # What is logged later than this was not an input.
        self._pointer = str(instance.event_log_storage.get_maximum_record_id() or 0)

    def tagged(self, marks: Sequence[Mark]) -> list[Mark]:
        """Return marks with their tags; those of rows that were there keep the tags they had."""
        if self._version is None:
            return list(marks)
        made = [mark for mark in marks if not mark.planned and not mark.again]
        again = [mark for mark in marks if mark.again]
        inputs = self._inputs({mark.partition for mark in made if mark.partition is not None})
        before = {key: self._before(key, again) for key in {mark.key for mark in again}}
        return [
            replace(mark, tags=before[mark.key].get(mark.partition or "", {}))
            if mark.again
            else mark
            if mark.planned
            else replace(mark, tags=self._tags(mark, inputs))
            for mark in marks
        ]

    def _tags(self, mark: Mark, inputs: Mapping[AssetKey, Mapping[str, str]]) -> Tags:
        tags = {CODE_VERSION_TAG: self._version or "", DATA_VERSION_TAG: self._run_id}
        for parent in self._graph.by_key[mark.key].parents:
            if parent == self._node.key:
                # Written together with the part: there is no later one that it was not made from.
                version, pointer = self._run_id, NULL_EVENT_POINTER
            else:
                version = inputs.get(parent, {}).get(mark.partition or "", UNKNOWN)
                pointer = self._pointer
            tags[get_input_data_version_tag(parent)] = version
            tags[get_input_event_pointer_tag(parent)] = pointer
        return tags

    def _inputs(self, partitions: Collection[str]) -> dict[AssetKey, Mapping[str, str]]:
        """Return the data versions of the parents' rows, by the partitions of this table."""
        parts = self._graph.parts(self._node)
        parents = {parent for node in (self._node, *parts) for parent in node.parents}
        return {parent: self._versions(parent, partitions) for parent in parents - {self._node.key}}

    def _versions(self, parent: AssetKey, partitions: Collection[str]) -> Mapping[str, str]:
        node = self._graph.by_key.get(parent)
        if node is None or node.grain is None or self._node.grain is None:
            return dict.fromkeys([*partitions, ""], self._whole_versions.get(parent, UNKNOWN))
        mapped = _mapped(self._node.grain, node.grain, partitions)
        found = self._latest_versions(parent, set(mapped.values()))
        return {
            own: found[theirs][DATA_VERSION_TAG]
            for own, theirs in mapped.items()
            if DATA_VERSION_TAG in found.get(theirs, {})
        }

    @cached_property
    def _whole_versions(self) -> dict[AssetKey, str]:
        """The data versions of parents without partitions."""
        parts = self._graph.parts(self._node)
        found: dict[AssetKey, str] = {}
        for parent in {key for node in (self._node, *parts) for key in node.parents}:
            node = self._graph.by_key.get(parent)
            if node is None or node.grain is None:
                event = self._instance.get_latest_materialization_event(parent)
                version = extract_data_version_from_entry(event) if event else None
                found[parent] = version.value if version else UNKNOWN
        return found

    def _before(self, key: AssetKey, marks: Iterable[Mark]) -> Mapping[str, Tags]:
        partitions = {mark.partition for mark in marks if mark.key == key and mark.partition}
        return latest_tags(self._instance, key, partitions)

    def _latest_versions(self, key: AssetKey, partitions: Collection[str]) -> Mapping[str, Tags]:
        if not partitions:
            return {}
        return self._instance.event_log_storage.get_latest_tags_by_partition(
            key,
            DagsterEventType.ASSET_MATERIALIZATION,
            [DATA_VERSION_TAG],
            sorted(partitions),
        )


def latest_tags(
    instance: DagsterInstance, key: AssetKey, partitions: Collection[str]
) -> dict[str, Tags]:
    """Return the tags of the latest marks of some partitions of a table."""
    storage, event = instance.event_log_storage, DagsterEventType.ASSET_MATERIALIZATION
    ids = list(storage.get_latest_storage_id_by_partition(key, event, set(partitions)).values())
    if not ids:
        return {}
    found = storage.fetch_materializations(
        AssetRecordsFilter(asset_key=key, storage_ids=ids), limit=len(ids)
    )
    return {
        record.partition_key or "": record.event_log_entry.tags or {} for record in found.records
    }


def _mapped(own: Grain, theirs: Grain, partitions: Iterable[str]) -> dict[str, str]:
    """Return the parent's partitions by ours, none where our key does not say which."""
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
